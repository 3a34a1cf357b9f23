# What scenarios are made of. They run in dom0; `backend` runs a command where the backends are: here, or in the driver
# domain. Sourced with `place` (dom0, driver-domain) and `side` (theirs, ours) set.

guests=/run/guests
mkdir -p $guests
images=/var/lib/xen/images

# --- reports ---------------------------------------------------------------------------------------------------------

report() { (IFS=$'\t'; flock 8; echo "$*" >> /out/results) 8> /run/report; }
since() { awk "BEGIN { printf \"%.2f\", $EPOCHREALTIME - $1 }"; }
# A line in every log, so that they can be read side by side.
mark() { echo "=== $EPOCHREALTIME $1"; echo "$EPOCHREALTIME === $1" >> /out/store-trace; }

# fail TEXT...: the scenario has failed, and this is why.
fail() {
    echo "FAILED: $*"
    [ -s /run/failure ] || echo "$*" > /run/failure
    exit 1
}
broken() { [ -s /run/failure ] || echo "\`$1\` failed" > /run/failure; }

# timed NAME COMMAND...: a step, with its time in the report.
timed() {
    local name=$1 began=$EPOCHREALTIME
    shift
    echo "--- $name: $*"
    "$@" || fail "$name: \`$*\` failed"
    report step "$scenario" "$name" "$(since "$began")"
}

# found NAME TEXT: what was seen, for the report.
found() { echo "--- $1: $2"; report found "$scenario" "$1" "$(tr '\n\t' '; ' <<< "$2")"; }

# count NAME NUMBER OF: how often it was so, for the report.
count() { echo "--- $1: $2 of $3"; report count "$scenario" "$1" "$2 of $3"; }

# does_not_apply WHY: ends the scenario; there is nothing of the kind on this side.
does_not_apply() {
    echo "$*" > /run/failure
    end_guests
    exit 77
}

# wait_for SECONDS WHAT COMMAND...: until it succeeds.
wait_for() {
    local limit=$1 what=$2 began=$EPOCHREALTIME
    shift 2
    until "$@" > /dev/null 2>&1; do
        awk "BEGIN { exit !($EPOCHREALTIME - $began > $limit) }" && fail "$what: not within $limit s"
        sleep 0.4
    done
}

# --- domains ---------------------------------------------------------------------------------------------------------

# order DOMAIN COMMAND: runs a line of shell there, over its console; its output and its exit code.
order() {
    local log=/out/consoles/guest-$1.log from tty tag=$RANDOM$RANDOM line wait=0
    tty=$(xenstore-read "/local/domain/$(domid "$1")/console/tty") || return
    from=$(stat -c %s "$log")
    # Through a file: what it leaves running keeps its output open.
    printf '{ ( %s\n ); echo "= $?"; } > /tmp/answer 2>&1; sed "s/^/@%s /" /tmp/answer\n' "$2" $tag > "$tty"
    while ! line=$(tail -c +$((from + 1)) "$log" | grep -a "^@$tag = "); do
        ((wait++ < ${patience:-200})) || fail "$1 does not answer: $2"
        sleep 0.4
    done
    tail -c +$((from + 1)) "$log" | tr -d '\r' | sed -n "/^@$tag = /q; s/^@$tag //p"
    line=${line//$'\r'/}
    return "${line##* = }"
}

# tell DOMAIN COMMAND: the same, without waiting for an answer.
tell() { echo "$2" > "$(xenstore-read "/local/domain/$(domid "$1")/console/tty")"; }

# console_says DOMAIN PATTERN TIMES: its console has that many such lines.
console_says() { [ "$(grep -ac "$2" "/out/consoles/guest-$1.log")" -ge "$3" ]; }

domid() { if [ "$1" = dd ] && [ -n "$dd" ]; then echo "$dd"; else xl domid "$1"; fi; }

# backend COMMAND: runs it where the backends are.
backend() {
    if [ $place = dom0 ]; then bash -c "$1"; else order dd "$1"; fi
}

# start_guest NAME ADDRESS DISKS CARDS: a guest with these, in xl's syntax; until its shell answers.
start_guest() {
    local list='' one
    rm -f "/out/consoles/guest-$1.log"
    {
        echo "name = '$1'"
        echo "kernel = '/parts/vmlinux'"
        echo "ramdisk = '/parts/guest.cpio'"
        echo "extra = 'console=hvc0 quiet address=$2'"
        echo "memory = 128"
        for one in $3; do list+="'$one', "; done
        echo "disk = [ $list ]"
        list=''
        for one in $4; do list+="'$one', "; done
        echo "vif = [ $list ]"
        echo "on_crash = 'destroy'"
        echo "on_reboot = 'restart'"
    } > "$guests/$1"
    xl create -q "$guests/$1" && await_guest "$1"
}

await_guest() { wait_for 180 "the shell of $1" has_shell "$1"; }
# Its devices are there before its shell is; one that failed is why the shell never comes.
has_shell() {
    grep -aq '^@ready' "/out/consoles/guest-$1.log" && return
    local errors
    errors=$(xenstore-ls -f "/local/domain/$back/backend" | grep "/$(domid "$1")/.*/hotplug-error") || return
    fail "$errors" 2> /dev/null
}

end_guest() {
    rm -f "$guests/$1"
    timeout 60 xl destroy "$1"
}

end_guests() {
    local guest
    for guest in "$guests"/*; do
        [ ! -e "$guest" ] || end_guest "${guest##*/}" || :
    done
}

# image NAME: a disk image of its own for the scenario, and its path.
image() {
    backend "truncate -s 16M $images/$scenario-$1.img" >&2
    echo "$images/$scenario-$1.img"
}
where() { [ $place = dom0 ] || echo ",backend=dd"; }
# disk PATH [VDEV [ACCESS]], card MAC-END [BRIDGE]: in xl's syntax.
disk() { echo "format=raw,vdev=${2:-xvda},access=${3:-rw}$(where),target=$1"; }
card() { echo "mac=00:16:3e:77:00:$1,bridge=${2:-xenbr0}$(where)"; }

# attach_disk GUEST PATH VDEV, attach_card GUEST DEVID MAC-END: until the guest has it.
attach_disk() { xl block-attach "$1" "$(disk "$2" "$3")" && connected vbd "$1" "$(number "$3")"; }
attach_card() { xl network-attach "$1" $(words "$(card "$3")") && connected vif "$1" "$2"; }
# The command line has a card's keys as words of their own (xl_nic.c, `main_networkattach`).
words() { echo "${1//,/ }"; }
number() { case $1 in xvda) echo $xvda ;; xvdb) echo $xvdb ;; esac; }

# refused_disk GUEST PATH VDEV, refused_card GUEST DEVID MAC-END BRIDGE: attaching it fails, and says why.
refused_disk() {
    refused vbd "$1" "$(number "$3")" xl block-attach "$1" "$(disk "$2" "$3")"
    xl block-detach "$1" "$3" > /dev/null 2>&1 || :
}
refused_card() {
    refused vif "$1" "$2" xl network-attach "$1" $(words "$(card "$3" "$4")")
    xl network-detach "$1" "$2" > /dev/null 2>&1 || :
}
refused() {
    local kind=$1 guest=$2 path began=$EPOCHREALTIME said code
    path=$(nodes "$1" "$2" "$3")
    shift 3
    said=$("$@" 2>&1) && code=0 || code=$?
    found "xl" "exit code $code after $(since "$began") s; ${said:-it says nothing}"
    if [ $place = dom0 ]; then
        [ $code != 0 ] || fail "xl says that it is attached"
    else
        wait_for 60 "an error in the store" has_failed "$path"
        found "store" "hotplug-status=$(xenstore-read "$path/hotplug-status"), hotplug-error=$(xenstore-read "$path/hotplug-error") after $(since "$began") s"
    fi
}
has_failed() { [ "$(xenstore-read "$1/hotplug-status")" != connected ] && xenstore-exists "$1/hotplug-error"; }

# --- the store -------------------------------------------------------------------------------------------------------

# nodes KIND GUEST DEVID: the backend's directory.
nodes() { echo "/local/domain/$back/backend/$1/$(domid "$2")/$3"; }
holds() { [ "$(xenstore-read "$1" 2>/dev/null)" = "$2" ]; }
gone() { ! xenstore-exists "$1"; }
# connected KIND GUEST DEVID: until both sides are.
connected() {
    local path
    path=$(nodes "$@")
    wait_for 60 "$1 $3 of $2 to be connected" is_connected "$path"
}
is_connected() {
    if xenstore-exists "$1/hotplug-error" && ! holds "$1/hotplug-status" connected; then
        fail "$(xenstore-read "$1/hotplug-error")"
    fi
    holds "$1/state" 4 && holds "$(xenstore-read "$1/frontend")/state" 4
}
xvda=51712
xvdb=51728

# --- what is left ----------------------------------------------------------------------------------------------------

# The machine and the store, in lines.
picture() {
    backend 'losetup -a | sed "s/^/loop device /"
        for link in /sys/class/net/*; do echo "link ${link##*/}$([ ! -e $link/master ] || echo " on $(basename $(readlink $link/master))")"; done
        nft list tables | sed "s/^/rules: /"
        for record in /run/xenplug/journal/*; do case $record in *.lock|*/lock|*/\*) ;; *) echo "journal ${record##*/}" ;; esac; done'
    xenstore-ls -f "/local/domain/$back/backend" 2>/dev/null | sed 's/ = .*//; s/^/node /'
    xenstore-ls -f /libxl 2>/dev/null | sed 's/ = .*//; s/^/node /'
    xl list | sed 1d | awk '{ print "domain " $1 }'
}

take_baseline() { picture | sort > /run/baseline; }
at_baseline() { picture | sort > /run/picture; diff -U0 /run/baseline /run/picture > /run/difference; }
# expect_baseline: everything is as it was before the scenario, at the latest after a while.
expect_baseline() {
    local began=$EPOCHREALTIME
    until at_baseline; do
        if awk "BEGIN { exit !($EPOCHREALTIME - $began > 20) }"; then
            fail "left over: $(grep '^[+-][^+-]' /run/difference | sed 's/^+//; s/^-/missing: /' | head -20)"
        fi
        sleep 0.5
    done
}

# xl_may_complain: what the scenario does is meant to make xl complain.
xl_may_complain() { complaints=expected; }
complaints=
# expect_no_complaints: libxl had no error to tell, during the scenario.
expect_no_complaints() {
    [ -z "$complaints" ] || return 0
    complaints=$(awk "/^=== .* begin $scenario\$/ { said = \"\" } /^libxl: error/ { said = said \$0 \"\\n\" } END { printf \"%s\", said }" /out/run.log)
    [ -z "$complaints" ] || fail "$complaints"
}

# --- the daemons -----------------------------------------------------------------------------------------------------

set_up() {
    back=0 dd=
    if [ $place = driver-domain ]; then
        dd=$(xl domid dd)
        back=$dd
    fi
    if [ $side = ours ]; then
        backend "$(cat /parts/scenarios/install-$place.sh)" || return
    fi
    [ $place = dom0 ] && [ $side = theirs ] && return
    start_daemon || return
    [ $place = driver-domain ] || { xenplug scripts install && xenplug scripts status; }
}

# Where the scripts run, there is no daemon.
needs_a_daemon() { [ $place != dom0 ] || [ $side != theirs ] || does_not_apply "the scripts have no daemon"; }

start_daemon() {
    if [ $side = ours ]; then
        backend 'setsid xenplugd --config /etc/xenplug/xenplugd.toml < /dev/null >> /run/daemon.log 2>&1 & echo $! > /run/daemon.pid'
        backend 'for n in $(seq 100); do xenplug status > /dev/null 2>&1 && exit; sleep 0.1; done; tail -5 /run/daemon.log; exit 1'
    else
        backend 'setsid xl -vvv devd -F < /dev/null >> /run/daemon.log 2>&1 & echo $! > /run/daemon.pid; sleep 1'
    fi
}
# enable_qdisk IMAGE...: the example's table for disks that QEMU serves, which is a comment there; and a user for QEMU, who
# owns the images and may use Xen's devices. An emulated QEMU needs its time.
enable_qdisk() {
    [ $side = ours ] || return 0
    backend "install -D -m 644 -t /usr/lib/xenplug/plugins /srv/xenplug/target/plugins/qdisk.wasm
        echo xenplug-qemu:x:990:990::/nonexistent:/usr/sbin/nologin >> /etc/passwd; echo xenplug-qemu:x:990: >> /etc/group
        chown xenplug-qemu $*; for one in evtchn gntdev xenbus; do chgrp xenplug-qemu /dev/xen/\$one && chmod 660 /dev/xen/\$one; done
        sed -i '/^# \\[plugin.qdisk\\]/,/^\$/{s/^# //; s/60000/300000/; s/70s/310s/}' /etc/xenplug/xenplugd.toml && xenplugd --check && kill -HUP \$(cat /run/daemon.pid)"
}
no_device_model() { ! xenstore-exists "/local/domain/$back/device-model/$guest_id"; }
kill_daemon() { backend 'kill -9 $(cat /run/daemon.pid); while kill -0 $(cat /run/daemon.pid) 2> /dev/null; do sleep 0.1; done'; }

save_logs() {
    mkdir -p "/out/logs/$1"
    backend 'cat /run/daemon.log; : > /run/daemon.log' > "/out/logs/$1/daemon.log" 2>&1 || :
    cp /var/log/xen/*.log "/out/logs/$1/" 2> /dev/null || :
    xenstore-ls -fp > "/out/logs/$1/store" 2>&1
    cp /run/baseline /run/picture /run/difference "/out/logs/$1/" 2> /dev/null || :
}

# Uninstalls the shims of a scenario in dom0.
tear_down() {
    [ $place = dom0 ] && [ $side = ours ] || return 0
    xenplug scripts uninstall && xenplug scripts status
}
