# The driver domain may make no more nodes: an attach comes to nothing and holds nothing; the next one succeeds.
# Only in: driver-domain
image=$(image data)
start_guest g 10.77.0.2 "$(disk "$(image root)")" "$(card 01)"
connected vbd g $xvda
connected vif g 0
shown() { xenstore-read "$path/$1" 2> /dev/null || echo absent; }
used() { xenstore-control quota "$back" | sed -n "s/^$1 *: *\([0-9]*\).*/\1/p"; }
found "used in the driver domain" "$(used nodes) nodes of 1000, $(used watches) watches of 128"
trap 'xenstore-control quota set nodes 1000' EXIT
xenstore-control quota set nodes "$(used nodes)"
timed "attach without room" xl block-attach g "$(disk "$image" xvdb)"
sleep 5
path=$(nodes vbd g $xvdb)
found "without room" "state=$(shown state), hotplug-status=$(shown hotplug-status)"
backend "losetup -j $image" | grep . && fail "a loop device is held for a disk that is not connected"
xenstore-control quota set nodes 1000
wait_for 20 "the reason in the store" has_failed "$path"
found "with room again" "hotplug-status=$(shown hotplug-status), hotplug-error=$(shown hotplug-error)"
xl block-detach g xvdb
timed "attach afterwards" attach_disk g "$image" xvdb
timed "detach" xl block-detach g xvdb
