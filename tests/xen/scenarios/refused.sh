# What cannot be attached is refused: a file that is not there, a bridge that is not there, a path that is not granted.
xl_may_complain
start_guest g 10.77.0.2 '' ''
timed "no such file" refused_disk g $images/nowhere.img xvdb
timed "no such bridge" refused_card g 0 01 xenbr77
if [ $side = ours ]; then
    backend 'mkdir -p /srv/secret && truncate -s 16M /srv/secret/other.img' > /dev/null
    timed "not granted" refused_disk g /srv/secret/other.img xvdb
fi
