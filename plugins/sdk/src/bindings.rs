//! Bindings that wit-bindgen generates from the WIT package, with the crate's only `unsafe`.
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
