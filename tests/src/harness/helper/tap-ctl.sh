# Keeps numbers, processes, and what each has attached and open, in files, and answers as blktap's tap-ctl does (control/).
# With a file `module` there is the old kernel's block device as well: a loop device by another name.
word=$1
shift
pid= minor= image= type= file= read_only=
while [ $# -gt 0 ]; do
    case $1 in
    -p) pid=$2; shift ;;
    -m) minor=$2; shift ;;
    -a) image=$2; shift ;;
    -t) type=$2; shift ;;
    -f) file=$2; shift ;;
    -R) read_only=-r ;;
    esac
    shift
done
first=0 place=/run/blktap-control/tapdisk/tapdisk-
if [ -e $here/module ]; then
    # All fake tap-ctl of the host share these devices: each has numbers of its own.
    first=$((100000 + $(echo $here | cksum | cut -d ' ' -f 1) % 900000))
    place=/dev/xen/blktap-2/tapdev
fi
fail() { echo "$2" >&2; exit $1; }
alive() { grep -qs "^State:[[:space:]]*[^ZX[:space:]]" /proc/$1/status; }
reached() { alive $pid || fail 111 "Connection refused"; }
attached() { [ -e $here/attached$minor ] || fail 19 "No such device"; }
list() {
    for marker in $here/minor*; do
        [ -e $marker ] || continue
        number=${marker##*/minor}
        [ -z "$minor" ] || [ $minor = $number ] || continue
        serving= args=
        [ ! -e $here/attached$number ] || serving=$(cat $here/attached$number)
        alive "$serving" || serving=
        [ -z "$serving" ] || [ ! -e $here/open$number ] || args=$(cat $here/open$number)
        [ -z "$type$file" ] || [ "$type:$file" = "$args" ] || continue
        echo "${serving:+pid=$serving }minor=$number${serving:+ state=0}${args:+ args=$args}"
    done
}
allocate() {
    minor=$first
    # Another process allocates a number first.
    [ ! -e $here/overtaken ] || { rm $here/overtaken; : >$here/minor$minor; spawn; echo $pid >$here/attached$minor; }
    until (set -C; : >$here/minor$minor) 2>/dev/null; do minor=$((minor + 1)); done
    [ ! -e $here/module ] || echo "$minor minor" >>$here/numbers
    [ ! -e $here/slow ] || sleep 100
    [ ! -e $here/hesitant ] || sleep 0.5
}
free() {
    [ -e $here/minor$minor ] || fail 2 "No such file or directory"
    [ ! -e $here/attached$minor ] || ! alive $(cat $here/attached$minor) || fail 11 "Resource temporarily unavailable"
    rm $here/minor$minor
}
spawn() {
    setsid sleep 86421 >/dev/null 2>&1 </dev/null &
    pid=$!
    echo $pid >>$here/started
    echo "$pid tapdisk" >>$here/numbers
}
attach() {
    reached
    [ -e $here/minor$minor ] || fail 1 "Operation not permitted"
    echo $pid >$here/attached$minor
}
open() {
    reached
    attached
    [ -e "${image#*:}" ] || fail 2 "No such file or directory"
    [ ! -e $here/refused ] || fail 22 "Invalid argument"
    echo "$image" >$here/open$minor
    [ -e $here/module ] || return 0
    loop=$(losetup --find --show $read_only "${image#*:}")
    # Another fake tap-ctl may remove the folder in between.
    until mkdir -p ${place%/*} && mknod $place$minor b 7 ${loop#/dev/loop} 2>/dev/null; do :; done
    echo $place$minor >>$here/made
}
close() {
    reached
    attached
    [ ! -e $here/stuck ] || fail 16 "Device or resource busy"
    rm -f $here/open$minor
    [ ! -e $place$minor ] || { losetup -d $place$minor; rm $place$minor; }
}
detach() {
    reached
    attached
    [ ! -e $here/open$minor ] || fail 16 "Device or resource busy"
    rm $here/attached$minor
    kill $pid
}
case $word in
check) ;;
list) list ;;
allocate) allocate && echo $place$minor ;;
spawn) spawn && echo $pid ;;
free | attach | open | close | detach) $word ;;
destroy) close && detach && free ;;
create)
    allocate
    spawn
    attach
    (open) || { code=$?; detach; free; exit $code; }
    echo $place$minor ;;
*) fail 22 "invalid COMMAND $word" ;;
esac
