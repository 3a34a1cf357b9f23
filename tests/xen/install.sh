# As the README says, with what the build left in /srv/xenplug. `example` is the configuration.
cd /srv/xenplug || exit
install -D -t /usr/sbin target/release/xenplugd
install -D -t /usr/bin target/release/xenplug
install -D -m 644 -t /usr/lib/xenplug/plugins target/plugins/phy.wasm target/plugins/vif-bridge.wasm
install -D -t /usr/lib/xenplug target/release/xenplug-script
install -D -m 644 "examples/$example" /etc/xenplug/xenplugd.toml
xenplugd --check
