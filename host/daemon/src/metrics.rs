//! What the daemon counts, in the OpenMetrics text format.

use std::{fmt, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};
use xenplug_xenbus::{Kind, Part};

use crate::registry::View;

/// The kind of backend.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: String,
}

/// The kind of backend, and the device's state.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InState {
    kind: String,
    state: &'static str,
}

/// What the daemon counts.
pub(crate) struct Metrics {
    registry: Registry,
    connected: Family<OfKind, Counter>,
    failed: Family<OfKind, Counter>,
    duration: Family<OfKind, Histogram>,
    devices: Family<InState, Gauge>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("xenplug");
        let connected = Family::default();
        let failed = Family::default();
        let duration: Family<OfKind, Histogram> =
            Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.000_1, 2.0, 18)));
        let devices = Family::default();
        registry.register("connects", "Devices that were connected", connected.clone());
        registry.register("failures", "Devices that could not be connected", failed.clone());
        registry.register_with_unit(
            "connect",
            "Time from the handler's start until the device was published",
            Unit::Seconds,
            duration.clone(),
        );
        registry.register("devices", "Devices known now", devices.clone());
        Self {
            registry,
            connected,
            failed,
            duration,
            devices,
        }
    }

    pub(crate) fn connected(&self, kind: &Kind, took: Duration) {
        let labels = OfKind { kind: kind.to_string() };
        self.connected.get_or_create(&labels).inc();
        self.duration.get_or_create(&labels).observe(took.as_secs_f64());
    }

    pub(crate) fn failed(&self, kind: &Kind) {
        self.failed.get_or_create(&OfKind { kind: kind.to_string() }).inc();
    }

    /// All metrics, with the devices as they are now.
    pub(crate) fn encode(&self, devices: &[(Part, View)]) -> Result<String, fmt::Error> {
        self.devices.clear();
        for (part, view) in devices {
            let labels = InState {
                kind: part.device.kind.to_string(),
                state: view.phase.as_str(),
            };
            self.devices.get_or_create(&labels).inc();
        }
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
