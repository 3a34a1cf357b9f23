# Asked by `xenplug`, the driver domain plugs a disk and a card into a running guest; detach returns when nothing is held.
# Only in: driver-domain
[ $side = ours ] || does_not_apply "xl devd cannot be asked"
# Where dom0 has the checkout.
asker=/srv/xenplug/target/release/xenplug
image=$(image data)
start_guest g 10.77.0.2 '' ''
number=$(domid g)
disk="format=raw,vdev=xvdb,access=rw,target=$image"
card="mac=00:16:3e:77:00:01,bridge=xenbr0,devid=0"
ask() {
    local what=$1
    shift
    $asker "$what" --backend dd --frontend $number --wait --timeout 120s "$@"
}
request() { echo "/hotplug/domain/$back/$1/$number/$2"; }
# nothing_held: what detach promises, looked at once.
nothing_held() {
    local held
    held=$(backend "losetup -j $image; ls -d /sys/class/net/xenbr0/brif/vif$number.* 2> /dev/null || :")
    [ -z "$held" ] || fail "still held: $held"
}

timed "prepare" $asker prepare dd
for round in $(seq ${rounds:-3}); do
    timed "attach a disk" ask attach vbd "$disk"
    connected vbd g $xvdb
    timed "attach a card" ask attach vif "$card"
    connected vif g 0
    timed "detach the disk" ask detach vbd xvdb
    timed "detach the card" ask detach vif 0
    nothing_held
done

timed "attach a disk" ask attach vbd "$disk"
connected vbd g $xvdb
timed "write and read the disk" order g 'dd if=/dev/urandom of=/tmp/a bs=64k count=16 2>/dev/null && dd if=/tmp/a of=/dev/xvdb bs=64k conv=fsync 2>/dev/null &&
    echo 3 > /proc/sys/vm/drop_caches && dd if=/dev/xvdb of=/tmp/b bs=64k count=16 2>/dev/null && cmp /tmp/a /tmp/b'
timed "attach a card" ask attach vif "$card"
connected vif g 0
timed "ping over the bridge" order g 'ip address add 10.77.0.2/24 dev eth0 && ip link set eth0 up && ping -c 3 -W 5 10.77.0.1'

# What fails says why, in the driver domain's words.
said=$(ask attach vbd "format=raw,vdev=xvda,access=rw,target=$images/nowhere.img" 2>&1) && fail "there is no such file, and it is attached"
found "an attach that fails" "${said##*$'\n'}"
[[ $said == *"phy: "*nowhere.img* ]] || fail "it says: $said"

# The daemon dies in the middle of a detach, and of an attach.
ask detach vbd xvdb &
kill_daemon
start_daemon
timed "detach, the daemon killed" wait $!
backend "losetup -j $image" | grep . && fail "the loop device is still held"
ask attach vbd "$disk" &
wait_for 60 "the request to be taken up" eval '[ "$(xenstore-read $(request vbd $xvdb)/state)" -gt 1 ]'
kill_daemon
start_daemon
timed "attach, the daemon killed" wait $!
connected vbd g $xvdb
connected vif g 0

# What a destroyed guest leaves behind is removed and reported.
timed "destroy" end_guest g
wait_for 60 "the disk's request to be closed" holds "$(request vbd $xvdb)/state" 6
wait_for 60 "the card's request to be closed" holds "$(request vif 0)/state" 6
found "its disk's request" "$(xenstore-read "$(request vbd $xvdb)/error")"
nothing_held
ask detach vbd xvdb
ask detach vif 0
