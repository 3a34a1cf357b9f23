//! The interfaces of `wit/` in Rust: generated, and checked against the components at link time.

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
    trappable_error_type: { "xen:hotplug/types.error" => crate::call_error::CallError },
    with: {
        "xen:hotplug/block.source": crate::handles::OpenSource,
        "xen:hotplug/block.loop-device": crate::handles::HeldLoop,
        "xen:hotplug/network.vif": crate::handles::OwnLink,
        "xen:hotplug/network.bridge": crate::handles::GrantedBridge,
        "xen:hotplug/process.helper-process": crate::handles::HeldHelper,
    },
});
