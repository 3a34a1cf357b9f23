//! What a guest, or whoever can write a backend's directory, may write never decides what is touched.

mod disks;
mod nodes;
mod vanishing;
