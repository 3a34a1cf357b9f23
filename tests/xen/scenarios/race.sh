# Giving back takes longer than libxl waits: detach returns when it is over, and the same is attached again at once.
# Only in: driver-domain
# Only by name.
# A disk and a card for each guest come and go, round after round without a pause. The disk is of a target that takes its
# time to log out of, the card has a hook that takes its time: what is slow is the same program on both sides. It is more
# than the 10 s that libxl waits, and less than the 20 s that xenplugd gives a helper: a machine that is busy with other
# things makes it more than both.
slow=12
rounds=${rounds:-1}
# More would keep a single emulated processor so busy that what is slow is killed for it.
guests_at_once=$((rounds < 20 ? 1 : 2))
# The driver domain's console is asked by all of them.
patience=1500
asker=/srv/xenplug/target/release/xenplug
san=/run/iscsi
race=/run/race
iqn() { echo "iqn.2026-11.example:disk-$1"; }

make_slow() {
    backend "mkdir -p $san /etc/xen/scripts/vif-post.d && echo $slow > $san/lingers
        for guest in \$(seq $guests_at_once); do truncate -s 16M $san/$(iqn \$guest).img; echo 10.0.0.1:3260,1 $(iqn \$guest); done > $san/targets
        printf '%s\n' '#!/bin/bash' '[ \$command != offline ] || { echo \$\$ > /run/slow-\$vif; sleep $slow; rm /run/slow-\$vif; }' |
            install /dev/stdin /etc/xen/scripts/vif-post.d/slow.hook"
    [ $side = ours ] || return 0
    backend 'cd /etc/xenplug && cp xenplugd.toml before-race.toml &&
        install -m 644 /srv/xenplug/target/plugins/block-iscsi.wasm /usr/lib/xenplug/plugins/ &&
        sed -i "/^bridges = /a hooks = \"/etc/xen/scripts/vif-post.d\"" xenplugd.toml &&
        cat >> xenplugd.toml << CONFIG
[plugin.block-iscsi]
component = "block-iscsi.wasm"
kinds = ["vbd"]
scripts = ["block-iscsi"]
[plugin.block-iscsi.grant]
block = [{ path = "/dev/disk/by-path/ip-*", access = "rw" }]
process = [
    { name = "iscsiadm", path = "/usr/bin/iscsiadm", args = ["-m", "session"] },
    { name = "iscsiadm", path = "/usr/bin/iscsiadm", args = ["-m", "discovery", "-t", "st", "-p", "*"] },
    { name = "iscsiadm", path = "/usr/bin/iscsiadm", args = ["-m", "node", "--targetname", "iqn.*", "-p", "*", "--login"] },
    { name = "iscsiadm", path = "/usr/bin/iscsiadm", args = ["-m", "node", "--targetname", "iqn.*", "-p", "*", "--logout"] },
]
[plugin.block-iscsi.limits]
deadline = "35s"
CONFIG
        xenplugd --check'
    kill_daemon
    start_daemon
    $asker prepare dd
}
make_as_before() {
    backend "rm -r $san /etc/xen/scripts/vif-post.d"
    [ $side = ours ] || return 0
    backend 'mv /etc/xenplug/before-race.toml /etc/xenplug/xenplugd.toml'
    kill_daemon
    start_daemon
}

# Of guest g$lane, whose number is $number: `attach disk`, `detach card` and so on, as dom0 does it on this side.
attach() {
    local disk="vdev=xvdb,script=block-iscsi$where,target=iqn=$(iqn $lane),portal=10.0.0.1" card="mac=00:16:3e:77:00:0$lane,bridge=xenbr0,devid=0$where"
    case $side-$1 in
        theirs-disk) timeout 120 xl block-attach $number "$disk" ;;
        theirs-card) timeout 120 xl network-attach $number ${card//,/ } ;;
        ours-disk) ask attach vbd "$disk" ;;
        ours-card) ask attach vif "$card" ;;
    esac
}
detach() {
    case $side-$1 in
        theirs-disk) timeout 120 xl block-detach $number xvdb ;;
        theirs-card) timeout 120 xl network-detach $number 0 ;;
        ours-disk) ask detach vbd xvdb ;;
        ours-card) ask detach vif 0 ;;
    esac
}
ask() {
    local what=$1
    shift
    $asker "$what" --backend dd --frontend $number --wait --timeout 120s "$@"
}
where=
[ $side = ours ] || where=,backend=dd

# comes DIRECTORY: the guest gets the device.
comes() {
    local began=$EPOCHREALTIME
    until holds "$1/state" 4; do
        ! xenstore-exists "$1/hotplug-error" || return
        awk "BEGIN { exit !($EPOCHREALTIME - $began > 120) }" && return 1
        sleep 0.4
    done
}
# held WHAT: what the driver domain still has of it, or is still busy with.
held() {
    case $1 in
        disk) backend "grep -o 'example:disk-$lane ' $san/sessions; losetup -j $san/$(iqn $lane).img; :" ;;
        # The hook may have been killed.
        card) backend "{ ls -d /sys/class/net/vif$number.0; grep -ao vif /proc/\$(cat /run/slow-vif$number.0)/cmdline; } 2> /dev/null; :" ;;
    esac
}
# saw WHAT HAPPENED: for the counts.
saw() { echo "$2" >> $race/$1-$lane; }

# come WHAT DIRECTORY, go WHAT: the one half of a round, and the other.
come() {
    local began=$EPOCHREALTIME
    if attach $1 && comes "$2"; then report step $scenario "attach a $1" "$(since $began)"; else saw $1 refused; fi
}
go() {
    local began=$EPOCHREALTIME
    detach $1 || saw $1 complained
    report step $scenario "detach a $1" "$(since $began)"
    [ -z "$(held $1)" ] || saw $1 held
}

# In parts of their own: with the one's detach waits the other's.
lane() {
    local lane=$1 number path
    number=$(domid g$lane)
    path=/local/domain/$back/backend
    for round in $(seq $((rounds / guests_at_once))); do
        come disk $path/vbd/$number/$xvdb
        come card $path/vif/$number/0
        go disk &
        go card
        wait $!
    done
}

mkdir -p $race
make_slow
for lane in $(seq $guests_at_once); do timed "start a guest" start_guest g$lane 10.77.0.1$lane '' ''; done
set +eE
for lane in $(seq $guests_at_once); do lane $lane & done
wait
set -eE
# Who says that it is over is taken at his word; a minute later even the slowest is done.
[ $side = ours ] || sleep 60
rounds=$((rounds / guests_at_once * guests_at_once))
bad=
for what in disk card; do
    left=0
    for lane in $(seq $guests_at_once); do
        number=$(domid g$lane)
        [ -z "$(held $what)" ] || left=$((left + 1))
    done
    for happened in refused complained held; do
        seen=$(cat $race/$what-* 2> /dev/null | grep -c $happened || :)
        case $happened in
            refused) text="$what: not attached" ;;
            complained) text="$what: detach failed" ;;
            held) text="$what: held when detach returned" ;;
        esac
        count "$text" $seen $rounds
        [ $seen = 0 ] || bad="$bad$text $seen times of $rounds; "
    done
    count "$what: held at the end" $left $guests_at_once
    [ $left = 0 ] || bad="$bad$what: held at the end $left; "
done
[ -z "$bad" ] || fail "$bad"
end_guests
make_as_before
