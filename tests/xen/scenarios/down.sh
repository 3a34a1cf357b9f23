# A guest is destroyed while the daemon is down; once it is started, all is cleaned up.
needs_a_daemon
# It waits in vain for devices that nobody takes down.
xl_may_complain
start_guest g 10.77.0.2 "$(disk "$(image root)")" "$(card 01)"
connected vbd g $xvda
connected vif g 0
kill_daemon
timed "destroy" end_guest g
timed "start" start_daemon
