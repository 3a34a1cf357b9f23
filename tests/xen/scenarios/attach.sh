# Disks and cards come and go ten times while the guest runs, and the guest is destroyed in the middle.
image=$(image data)
start_guest g 10.77.0.2 '' ''
for round in $(seq ${rounds:-10}); do
    timed "block-attach" attach_disk g "$image" xvdb
    timed "block-detach" xl block-detach g xvdb
    wait_for 20 "the backend's directory to go" gone "$(nodes vbd g $xvdb)"
    timed "network-attach" attach_card g 0 01
    timed "network-detach" xl network-detach g 0
    wait_for 20 "the backend's directory to go" gone "$(nodes vif g 0)"
done
attach_disk g "$image" xvdb
timed "destroy" end_guest g
