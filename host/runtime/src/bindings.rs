//! What `wit/` says, in Rust: generated, and checked against the components at link time.

#![allow(
    missing_docs,
    unreachable_pub,
    reason = "generated from wit/, where the documentation stands"
)]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "plugin",
    imports: { default: trappable },
    exports: { default: async },
    trappable_error_type: { "xen:hotplug/types.error" => crate::capability::CallError },
    with: {
        "xen:hotplug/block.source": crate::capability::block::OpenSource,
        "xen:hotplug/block.loop-device": crate::capability::block::HeldLoop,
        "xen:hotplug/network.vif": crate::capability::network::OwnLink,
        "xen:hotplug/network.bridge": crate::capability::network::GrantedBridge,
        "xen:hotplug/process.helper-process": crate::capability::process::OwnHelper,
    },
});
