# Knows one device.
[ "$1" = -ll ] || exit 1
# Another fake may remove the folder in between.
until mkdir -p /dev/mapper && ln -sf $2 /dev/mapper/$(cat $here/name) 2>/dev/null; do :; done
echo /dev/mapper/$(cat $here/name) >>$here/made
echo "$(cat $here/name) (3600140) dm-0 LIO-ORG,disk"
echo "size=4.0M features='0'"
