# Keeps its sessions in a file, and makes the disk of a session a loop device under the name that udev would give it. With
# a file `lingers` it takes that many seconds to log out.
touch $here/sessions
by_path=/dev/disk/by-path
# What a target has: an image of its own, or the one of all.
disk() { if [ -e $here/$1.img ]; then echo $here/$1.img; else echo $here/disk.img; fi; }
case "$*" in
"-m session")
    [ -s $here/sessions ] || { echo "iscsiadm: No active sessions." >&2; exit 21; }
    cat $here/sessions ;;
"-m discovery -t st -p "*)
    [ ! -e $here/unreachable ] || { echo "iscsiadm: cannot make connection to $6" >&2; exit 4; }
    cat $here/targets ;;
"-m node --targetname "*" -p "*" --login")
    ! grep -q " $4 " $here/sessions || { echo "iscsiadm: session exists" >&2; exit 15; }
    [ ! -e $here/refused ] || { echo "iscsiadm: initiator reported error (24 - iSCSI login failed due to authorization failure)" >&2; exit 24; }
    (flock 9; echo "tcp: [1] $6:3260,1 $4 (non-flash)" >>$here/sessions) 9>$here/lock
    [ ! -e $here/diskless ] || exit 0
    link="$by_path/ip-$6:3260-iscsi-$4-lun-0"
    loop=$(losetup --find --show $(disk $4))
    # Another fake may remove the folder in between.
    until mkdir -p $by_path && ln -sf $loop "$link" 2>/dev/null; do :; done
    echo "$link" >>$here/made
    [ ! -e $here/slow ] || sleep 100 ;;
"-m node --targetname "*" -p "*" --logout")
    grep -q " $4 " $here/sessions || { echo "iscsiadm: No matching sessions found" >&2; exit 21; }
    [ ! -e $here/stuck ] || { echo "iscsiadm: could not logout" >&2; exit 9; }
    link="$by_path/ip-$6:3260-iscsi-$4-lun-0"
    [ ! -e $here/lingers ] || sleep $(cat $here/lingers)
    # One that was ended while it logged in has not made the link.
    for loop in $(losetup --noheadings --output NAME --associated $(disk $4)); do losetup -d $loop; done
    rm -f $link
    (flock 9; sed -i "/ $4 /d" $here/sessions) 9>$here/lock ;;
*) exit 7 ;;
esac
