//! Stands in for the hypervisor under Debian's xenstored.
