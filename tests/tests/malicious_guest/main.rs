//! Values that a guest, or anybody who can write a backend's directory, writes never decide what is touched.

mod disks;
mod nodes;
mod vanishing;
