# QEMU serves qcow2 and raw disks: two of a guest by one process, written to while the daemon is killed and started again.
# Only by name.
# With QEMU.
first=$(image first) second=$(image second)
backend "qemu-img create -q -f qcow2 $first 16M"
enable_qdisk "$first" "$second"

# qdisk FORMAT VDEV IMAGE [WHERE]: in xl's syntax, where a target takes the rest of the line.
qdisk() { echo "format=$1,vdev=$2,access=rw,backendtype=qdisk${4:-},target=$3"; }
qemus() { backend 'for one in /proc/[0-9]*; do case $(readlink $one/exe) in *xen-qemu*) echo ${one##*/} ;; esac; done'; }
no_qemu() { [ -z "$(qemus)" ]; }
# checked DISK: 4 MiB are written, synced, read past the cache, and compared; twice.
checked() {
    order g "for round in 1 2; do dd if=/dev/urandom of=/tmp/data bs=1M count=4 && dd if=/tmp/data of=/dev/$1 bs=1M &&
        sync && echo 3 > /proc/sys/vm/drop_caches && dd if=/dev/$1 of=/tmp/back bs=1M count=4 && cmp /tmp/data /tmp/back ||
        exit; done 2> /dev/null"
}
# both_served: one QEMU serves both disks. An emulated QEMU takes its time to come.
both_served() {
    guest_id=$(domid g)
    wait_for 300 "xvda to be connected" is_connected "$(nodes qdisk g $xvda)"
    timed "write, read" checked xvda
    connected qdisk g $xvdb
    timed "write, read" checked xvdb
    found "QEMU" "$(qemus | wc -l) for 2 disks; $(backend "grep -E '^(Seccomp|Uid):' /proc/$(qemus)/status")"
    [ "$(qemus | wc -l)" = 1 ] || fail "there are $(qemus | wc -l) QEMUs"
}
# outlives_the_daemon: the guest writes all the while, and QEMU stays the same.
outlives_the_daemon() {
    local serving
    serving=$(qemus)
    backend 'xenplug status'
    order g 'touch /tmp/go; sh -c "while [ -e /tmp/go ]; do dd if=/dev/zero of=/dev/xvda bs=64k count=8 conv=fsync || echo disk >> /tmp/failures
        echo round >> /tmp/rounds; done" > /dev/null 2>&1 < /dev/null &'
    timed "kill" kill_daemon
    timed "restart" start_daemon
    sleep 2
    order g 'rm /tmp/go; sleep 2; wc -l < /tmp/rounds; [ ! -e /tmp/failures ]' || fail "the guest's input and output failed"
    [ "$(qemus)" = "$serving" ] || fail "QEMU is another: $(qemus)"
    timed "write, read" checked xvda
}
# nothing_serves: the last QEMU has gone, and what the guest wrote makes a sound image.
nothing_serves() {
    wait_for 30 "QEMU to end" no_qemu
    wait_for 10 "what QEMU wrote to go" no_device_model
    timed "qemu-img check" backend "qemu-img check $first"
}

# Disks of the configuration. libxl attaches no qdisk of a driver domain's to a running guest (libxl_dm.c,
# `libxl__dm_check_start`: "device model required but not running"), and in dom0 starts QEMU by itself.
timed "create" start_guest g 10.77.0.2 "$(qdisk qcow2 xvda "$first" "$(where)") $(qdisk raw xvdb "$second" "$(where)")" ''
both_served
[ $place = dom0 ] || [ $side = theirs ] || outlives_the_daemon
timed "block-detach" xl block-detach g xvdb
wait_for 20 "the backend's directory to go" gone "$(nodes qdisk g $xvdb)"
timed "write, read" checked xvda
# Of a guest that is destroyed libxl closes the disks by itself, and leaves `online` at 1 (libxl_device.c, `device_qemu_timeout`):
# no driver domain takes that for a removal, and libxl complains after 10 s, with whichever daemon.
[ $place = dom0 ] || xl_may_complain
timed "destroy" end_guest g
nothing_serves
[ $side = ours ] || return 0

# Disks of a running guest, asked for by `xenplug`, in dom0 too.
asker=/srv/xenplug/target/release/xenplug
ask() {
    local what=$1
    shift
    $asker "$what" --backend $back --frontend $guest_id --wait --timeout 310s "$@"
}
start_guest g 10.77.0.2 '' ''
guest_id=$(domid g)
$asker prepare $back
timed "attach" ask attach vbd "$(qdisk qcow2 xvda "$first")"
timed "attach" ask attach vbd "$(qdisk raw xvdb "$second")"
both_served
outlives_the_daemon
timed "detach" ask detach vbd xvdb
timed "write, read" checked xvda
timed "detach the last" ask detach vbd xvda
no_qemu || fail "QEMU still runs"
nothing_serves
