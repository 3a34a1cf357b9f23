# Two guests want the same image to write: the second is refused, with the reason.
xl_may_complain
image=$(image shared)
start_guest g 10.77.0.2 "$(disk "$image")" ''
start_guest h 10.77.0.3 '' ''
timed "refuse the second" refused_disk h "$image" xvdb
order g 'dd if=/dev/zero of=/dev/xvda bs=64k count=4 conv=fsync 2>/dev/null'
