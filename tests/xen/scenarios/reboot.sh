# A guest reboots, and has its disk and its card again.
start_guest g 10.77.0.2 "$(disk "$(image root)")" "$(card 01)"
first=$(xl domid g)
mount_and_write() { order g 'dd if=/dev/zero of=/dev/xvda bs=64k count=4 conv=fsync 2>/dev/null && ping -c 1 -W 5 10.77.0.1 > /dev/null'; }
mount_and_write
tell g 'busybox reboot -f'
rebooted() { local now; now=$(xl domid g 2> /dev/null) && [ "$now" != "$first" ]; }
timed "reboot" wait_for 60 "the guest to come back" rebooted
wait_for 60 "its shell" console_says g '^@ready' 2
connected vbd g $xvda
connected vif g 0
mount_and_write
