//! Bindings that wit-bindgen makes of the WIT package: the only generated code of the crate, and its only `unsafe`.
#![allow(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    reason = "the canonical ABI passes pointers"
)]
#![allow(
    missing_docs,
    unreachable_pub,
    rust_2018_idioms,
    clippy::all,
    reason = "generated code"
)]

wit_bindgen::generate!({
    path: "../../wit",
    world: "plugin",
    pub_export_macro: true,
    additional_derives: [PartialEq, Eq],
});
