# xenstored is replaced by a new one while it runs (live update): nothing is lost, and devices still come and go.
image=$(image data)
start_guest g 10.77.0.2 "$(disk "$(image root)")" "$(card 01)"
connected vbd g $xvda
connected vif g 0
# The new one is told on its command line where the old one left its state (xenstored_core.c, `--live-update`).
updated() { tr '\0' ' ' < "/proc/$(cat /run/xenstored.pid)/cmdline" | grep -- ' -U\| --live-update'; }
updates=$(updated | wc -w)
update() { xenstore-control live-update -t 30 /usr/bin/xenstored && xenstore-exists /tool/xenstored && [ "$(updated | wc -w)" -gt "$updates" ]; }
timed "live update" update
order g 'dd if=/dev/zero of=/dev/xvda bs=64k count=4 conv=fsync 2>/dev/null && ping -c 1 -W 5 10.77.0.1 > /dev/null'
timed "block-attach afterwards" attach_disk g "$image" xvdb
timed "block-detach afterwards" xl block-detach g xvdb
