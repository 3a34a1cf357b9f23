# Runs the scenarios of /out/plan, one after the other, in dom0. Reports to /out/results, a line of words parted by tabs
# for each thing that happened.
. /out/plan # place, side, scenarios
. /parts/scenarios/lib.sh

start_xen() {
    mkdir -p /out/consoles
    xenstored --pid-file /run/xenstored.pid || return
    local wait=0
    until timeout 5 xenstore-exists /tool/xenstored 2>/dev/null || ((wait++ > 50)); do sleep 0.1; done
    xen-init-dom0 && xenconsoled --log=all --log-dir=/out/consoles || return
    xenstore-watch / 2>&1 | while read -r path; do echo "$EPOCHREALTIME $path"; done >> /out/store-trace &
}

start_driver_domain() {
    cat > /run/dd.cfg <<CONFIG
name = "dd"
kernel = "/parts/vmlinux"
ramdisk = "/parts/root.cpio"
extra = "console=hvc0 quiet role=driver-domain"
memory = 500
vcpus = 1
driver_domain = 1
on_crash = "preserve"
CONFIG
    xl create -q /run/dd.cfg && wait_for 180 "the driver domain's shell" grep -q '^@ready' /out/consoles/guest-dd.log
}

began=$EPOCHREALTIME
start_xen && { [ $place = dom0 ] || start_driver_domain; } && set_up
status=$?
report ready "" "$status" "$(since "$began")" "domains are up"
[ $status = 0 ] || exit 1

for scenario in $scenarios; do
    began=$EPOCHREALTIME
    report begin "$scenario"
    : > /run/failure
    mark "begin $scenario"
    (
        take_baseline
        # Every command, with its time: what a scenario that hangs was doing.
        PS4='$EPOCHREALTIME '
        exec 9> /out/commands
        BASH_XTRACEFD=9
        set -x
        # Not in a condition, where bash would not heed `set -e`.
        set -eE
        trap 'broken "$BASH_COMMAND"' ERR
        . "/parts/scenarios/scenarios/$scenario.sh"
        end_guests
        expect_baseline
        expect_no_complaints
    )
    status=$?
    mark "end $scenario"
    save_logs "$scenario"
    (end_guests) || :
    report end "$scenario" "$status" "$(since "$began")" "$(tr '\n\t' '; ' < /run/failure)"
done
tear_down
