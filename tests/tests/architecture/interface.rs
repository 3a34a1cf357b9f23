//! The WIT package: every item has documentation, for vendors of plugins.

use anyhow::{Result, ensure};
use wit_parser::{Docs, Resolve, Stability, Type, TypeDefKind, TypeOwner, WorldItem};

use crate::root;

#[test]
fn wit_items_are_documented_and_gated() -> Result<()> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve
        .push_dir(root().join("wit"))
        .map_err(|error| anyhow::anyhow!("{error:#}"))?;
    let mut lacking = Vec::new();
    let mut documented = |docs: &Docs, what: String| {
        if docs.contents.as_ref().is_none_or(|text| text.trim().is_empty()) {
            lacking.push(format!("{what}: no docs"));
        }
    };
    let mut ungated = Vec::new();
    let mut gated = |stability: &Stability, what: String| {
        if !matches!(stability, Stability::Stable { .. }) {
            ungated.push(format!("{what}: no @since"));
        }
    };
    for world in resolve.packages[package].worlds.values().map(|id| &resolve.worlds[*id]) {
        documented(&world.docs, world.name.clone());
        gated(&world.stability, world.name.clone());
        for item in world.imports.values().chain(world.exports.values()) {
            ensure!(
                matches!(item, WorldItem::Interface { .. }),
                "{} has more than interfaces",
                world.name
            );
        }
    }
    for (name, id) in &resolve.packages[package].interfaces {
        let interface = &resolve.interfaces[*id];
        documented(&interface.docs, name.clone());
        gated(&interface.stability, name.clone());
        for (function, it) in &interface.functions {
            documented(&it.docs, format!("{name}.{function}"));
            gated(&it.stability, format!("{name}.{function}"));
        }
        for (of, ty) in interface
            .types
            .iter()
            .map(|(of, id)| (format!("{name}.{of}"), &resolve.types[*id]))
        {
            gated(&ty.stability, of.clone());
            let used = |id| resolve.types[id].owner != TypeOwner::Interface(interface_of(ty.owner));
            match &ty.kind {
                // A `use` needs no documentation of its own.
                TypeDefKind::Type(Type::Id(id)) if used(*id) => continue,
                TypeDefKind::Record(it) => it
                    .fields
                    .iter()
                    .for_each(|f| documented(&f.docs, format!("{of}.{}", f.name))),
                TypeDefKind::Variant(it) => it
                    .cases
                    .iter()
                    .for_each(|c| documented(&c.docs, format!("{of}.{}", c.name))),
                TypeDefKind::Enum(it) => it
                    .cases
                    .iter()
                    .for_each(|c| documented(&c.docs, format!("{of}.{}", c.name))),
                TypeDefKind::Flags(it) => it
                    .flags
                    .iter()
                    .for_each(|f| documented(&f.docs, format!("{of}.{}", f.name))),
                _ => {}
            }
            documented(&ty.docs, of);
        }
    }
    assert_eq!([lacking, ungated].concat(), [""; 0]);
    Ok(())
}

fn interface_of(owner: TypeOwner) -> wit_parser::InterfaceId {
    match owner {
        TypeOwner::Interface(id) => id,
        owner => unreachable!("a type of an interface is owned by {owner:?}"),
    }
}
