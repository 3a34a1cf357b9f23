//! The daemon's metrics, in the OpenMetrics text format.

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
use xenplug_xenbus::{Kind, Phase};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    kind: String,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PluginLabel {
    plugin: String,
}

/// The daemon's metrics.
pub(crate) struct Metrics {
    registry: Registry,
    connected: Family<KindLabel, Counter>,
    failed: Family<KindLabel, Counter>,
    duration: Family<KindLabel, Histogram>,
    devices: Family<StateLabels, Gauge>,
    faults: Family<PluginLabel, Counter>,
    backoffs: Family<PluginLabel, Gauge>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("xenplug");
        let connected = Family::default();
        let failed = Family::default();
        let duration: Family<KindLabel, Histogram> =
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
        let faults = Family::default();
        let backoffs = Family::default();
        registry.register(
            "plugin_faults",
            "Times that a plugin crashed, overran a limit or gave a bad answer",
            faults.clone(),
        );
        registry.register(
            "plugin_backoffs",
            "Guests that a plugin backs off from now",
            backoffs.clone(),
        );
        Self {
            registry,
            connected,
            failed,
            duration,
            devices,
            faults,
            backoffs,
        }
    }

    pub(crate) fn connected(&self, kind: &Kind, took: Duration) {
        let labels = KindLabel { kind: kind.to_string() };
        self.connected.get_or_create(&labels).inc();
        self.duration.get_or_create(&labels).observe(took.as_secs_f64());
    }

    pub(crate) fn failed(&self, kind: &Kind) {
        self.failed.get_or_create(&KindLabel { kind: kind.to_string() }).inc();
    }

    pub(crate) fn fault(&self, plugin: &str) {
        let plugin = plugin.to_owned();
        self.faults.get_or_create(&PluginLabel { plugin }).inc();
    }

    /// Encodes all metrics, with the current devices and the current number of backoffs of each plugin.
    pub(crate) fn encode(
        &self,
        devices: impl Iterator<Item = (Kind, Phase)>,
        backoffs: &[(String, usize)],
    ) -> Result<String, fmt::Error> {
        self.backoffs.clear();
        for (plugin, number) in backoffs {
            let labels = PluginLabel { plugin: plugin.clone() };
            self.backoffs
                .get_or_create(&labels)
                .set(i64::try_from(*number).unwrap_or(i64::MAX));
        }
        self.devices.clear();
        for (kind, phase) in devices {
            let labels = StateLabels {
                kind: kind.to_string(),
                state: phase.as_str(),
            };
            self.devices.get_or_create(&labels).inc();
        }
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
