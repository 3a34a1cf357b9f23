# Keeps for each of its devices whom it is connected to; others' are connected. It answers as nbd-client does
# (nbd-client.c): -c ends with 1 for a device that is not connected, -d with 0 for one, too.
own() { grep -qx "$1" $here/devices; }
case "$*" in
"-c "*)
    [ ! -e $here/unreadable ] || ! own $2 || { echo "could not read from server: Input/output error" >&2; exit 2; }
    ! own $2 || [ -e $here/${2##*/} ] || exit 1
    echo 1 ;;
"-d "*)
    [ -b "$2" ] || { echo "Error: Cannot open NBD: No such file or directory" >&2; exit 1; }
    [ ! -e $here/stuck ] || { echo "Error: Failed to disconnect device, check dmsg" >&2; exit 1; }
    ! own $2 || rm -f $here/${2##*/} ;;
*)
    [ $# -ge 3 ] || { echo "Error: not enough information specified, and argument didn't look like an nbd device" >&2; exit 1; }
    [ $1 != hesitant.example ] || sleep 1
    [ $1 != refused.example ] || { echo "Error: Socket failed: Connection refused" >&2; exit 1; }
    own $3 && [ ! -e $here/${3##*/} ] || { echo "Error: Failed to setup device, check dmesg" >&2; exit 1; }
    echo "$1 $2" >$here/${3##*/}
    [ $1 != slow.example ] || sleep 100 ;;
esac
