//! Measurements as a table for people and as JSON for programs.

use std::{fmt, fs, time::Duration};

use serde_json::{Value, json};

use super::{Name, Start};
use xenplug_tests::harness::Kind;

/// Time for a number of devices.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Disks or vifs.
    pub kind: Kind,
    /// Contestant that attached them.
    pub contestant: Name,
    /// Number of devices at once.
    pub devices: u32,
    /// The median of the runs.
    pub median: Duration,
    /// The fastest and the slowest run.
    pub range: (Duration, Duration),
    /// Number of runs; none if the figure was extrapolated.
    pub runs: usize,
}

impl Figure {
    /// Makes the figure of some runs, of which there is at least one.
    pub(super) fn of(kind: Kind, contestant: Name, devices: u32, mut times: Vec<Duration>) -> Self {
        times.sort();
        let range = (times[0], times[times.len() - 1]);
        Self {
            kind,
            contestant,
            devices,
            median: times[times.len() / 2],
            range,
            runs: times.len(),
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            contestant,
            devices,
            median,
            range: (fastest, slowest),
            runs,
        } = self;
        write!(f, "{kind} {contestant:<8} {devices:>5} {:>11}", milliseconds(*median))?;
        match runs {
            0 => write!(f, "  extrapolated"),
            _ => write!(
                f,
                "  {} to {} in {runs} runs",
                milliseconds(*fastest),
                milliseconds(*slowest)
            ),
        }
    }
}

/// Cost of the idle daemon with attached devices.
#[derive(Clone, Debug)]
pub struct Upkeep {
    /// Disks or vifs.
    pub kind: Kind,
    /// Number of attached devices.
    pub devices: u32,
    /// Resident memory in KiB.
    pub resident: u64,
    /// Resident memory in KiB, with each shared page divided by the number of processes that share it.
    pub proportional: u64,
    /// Processor time in 5 s, in ticks of 10 ms.
    pub idle_ticks: u64,
}

/// Measurements of one run of the benchmark.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Times.
    pub figures: Vec<Figure>,
    /// The daemon's upkeep.
    pub upkeep: Vec<Upkeep>,
    /// Times of scripts from start to end.
    pub starts: Vec<Start>,
}

/// Comparison of a measurement with a target of the project.
struct Verdict {
    what: String,
    target: &'static str,
    measured: String,
    reached: bool,
}

impl Report {
    /// Extrapolates the scripts' time for larger sizes from the largest size that was measured.
    pub(super) fn extrapolate_scripts(&mut self, sizes: &[u32]) {
        for kind in [Kind::Vbd, Kind::Vif] {
            let measured = self
                .figures
                .iter()
                .filter(|figure| figure.kind == kind && figure.contestant == Name::Script);
            let Some(largest) = measured.max_by_key(|figure| figure.devices).cloned() else {
                continue;
            };
            for &devices in sizes.iter().filter(|&&devices| devices > largest.devices) {
                let median = largest.median * devices / largest.devices;
                self.figures.push(Figure {
                    devices,
                    median,
                    range: (median, median),
                    runs: 0,
                    ..largest
                });
            }
        }
    }

    pub(super) fn time(&self, kind: Kind, contestant: Name, devices: u32) -> Option<Duration> {
        let wanted = (kind, contestant, devices);
        let mut figures = self.figures.iter();
        Some(
            figures
                .find(|figure| (figure.kind, figure.contestant, figure.devices) == wanted)?
                .median,
        )
    }

    fn verdicts(&self) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for kind in [Kind::Vbd, Kind::Vif] {
            let mut ratio = |what, target, over, under, reached: fn(f64) -> bool| {
                if let (Some(over), Some(under)) = (over, under) {
                    let ratio = Duration::as_secs_f64(&over) / Duration::as_secs_f64(&under);
                    let (measured, reached) = (format!("{ratio:.1} times"), reached(ratio));
                    verdicts.push(Verdict {
                        what: format!("{kind}: {what}"),
                        target,
                        measured,
                        reached,
                    });
                }
            };
            let time = |name, devices| self.time(kind, name, devices);
            let one = time(Name::Daemon, 1);
            ratio(
                "faster than the script",
                "at least 40 times",
                time(Name::Script, 1),
                one,
                |ratio| ratio >= 40.0,
            );
            ratio(
                "slower than the floor",
                "at most 1.5 times",
                one,
                time(Name::Floor, 1),
                |ratio| ratio <= 1.5,
            );
            let (many, some) = (time(Name::Daemon, 1000), time(Name::Daemon, 100));
            ratio("1000 devices against 100", "at most 11 times", many, some, |ratio| {
                ratio <= 11.0
            });
        }
        for Upkeep {
            kind,
            devices,
            resident,
            idle_ticks,
            ..
        } in &self.upkeep
        {
            let megabytes = *resident as f64 * 1024.0 / 1e6;
            verdicts.push(Verdict {
                what: format!("{kind}: resident with {devices} devices"),
                target: "under 40 MB",
                measured: format!("{megabytes:.1} MB"),
                reached: megabytes < 40.0,
            });
            verdicts.push(Verdict {
                what: format!("{kind}: processor time in 5 idle seconds"),
                target: "none",
                measured: format!("{} ms", idle_ticks * 10),
                reached: *idle_ticks == 0,
            });
        }
        for start in self.starts.iter().filter(|start| start.is_shim) {
            verdicts.push(Verdict {
                what: "the shim starts and ends".to_owned(),
                target: "under 2 ms",
                measured: milliseconds(start.median),
                reached: start.median < Duration::from_millis(2),
            });
        }
        verdicts
    }

    /// Returns the report as JSON.
    pub fn json(&self) -> Value {
        let figures = self.figures.iter().map(|figure| {
            json!({
                "kind": figure.kind.to_string(),
                "contestant": figure.contestant.to_string(),
                "devices": figure.devices,
                "median_us": figure.median.as_micros() as u64,
                "fastest_us": figure.range.0.as_micros() as u64,
                "slowest_us": figure.range.1.as_micros() as u64,
                "runs": figure.runs,
                "extrapolated": figure.runs == 0,
            })
        });
        let upkeep = self.upkeep.iter().map(|upkeep| {
            json!({
                "kind": upkeep.kind.to_string(),
                "devices": upkeep.devices,
                "rss_kib": upkeep.resident,
                "pss_kib": upkeep.proportional,
                "idle_ms_in_5_s": upkeep.idle_ticks * 10,
            })
        });
        let starts = self.starts.iter().map(|start| {
            json!({
                "what": start.what,
                "median_us": start.median.as_micros() as u64,
                "fastest_us": start.range.0.as_micros() as u64,
                "slowest_us": start.range.1.as_micros() as u64,
            })
        });
        let verdicts = self.verdicts().into_iter().map(|verdict| {
            let Verdict {
                what,
                target,
                measured,
                reached,
            } = verdict;
            json!({ "what": what, "target": target, "measured": measured, "reached": reached })
        });
        json!({
            "machine": host(),
            "figures": figures.collect::<Vec<_>>(),
            "upkeep": upkeep.collect::<Vec<_>>(),
            "starts": starts.collect::<Vec<_>>(),
            "verdicts": verdicts.collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.figures.is_empty() {
            self.fmt_figures(f)?;
        }
        if !self.starts.is_empty() {
            writeln!(f, "From start to end, nothing to do; {}\n", host())?;
            for Start {
                what, median, range, ..
            } in &self.starts
            {
                let (fastest, slowest) = (milliseconds(range.0), milliseconds(range.1));
                writeln!(f, "{what:<42} {:>9}  {fastest} to {slowest}", milliseconds(*median))?;
            }
            writeln!(f)?;
        }
        for Verdict {
            what,
            target,
            measured,
            reached,
        } in self.verdicts()
        {
            writeln!(
                f,
                "{:<7} {what}: {measured} (to reach: {target})",
                if reached { "reached" } else { "MISSED" }
            )?;
        }
        Ok(())
    }
}

impl Report {
    fn fmt_figures(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "From state=2 to hotplug-status=connected, all devices at once; {}\n",
            host()
        )?;
        writeln!(
            f,
            "{:<4} {:>7}   {:>13} {:>13} {:>13}",
            "kind", "devices", "script", "xenplugd", "floor"
        )?;
        let mut rows: Vec<_> = self
            .figures
            .iter()
            .map(|figure| (figure.kind, figure.devices))
            .collect();
        rows.sort();
        rows.dedup();
        for (kind, devices) in rows {
            write!(f, "{kind:<4} {devices:>7}  ")?;
            for name in [Name::Script, Name::Daemon, Name::Floor] {
                let wanted = (kind, name, devices);
                let figure = self
                    .figures
                    .iter()
                    .find(|figure| (figure.kind, figure.contestant, figure.devices) == wanted);
                let text = figure.map_or("-".to_owned(), |figure| {
                    format!(
                        "{}{}",
                        if figure.runs == 0 { "~" } else { "" },
                        milliseconds(figure.median)
                    )
                });
                write!(f, " {text:>13}")?;
            }
            writeln!(f)?;
        }
        writeln!(
            f,
            "\nMedians. ~ extrapolated from the largest number that was measured.\n"
        )
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

fn host() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores, Linux {}", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(contestant: Name, devices: u32, milliseconds: u64) -> Figure {
        Figure::of(
            Kind::Vbd,
            contestant,
            devices,
            vec![Duration::from_millis(milliseconds)],
        )
    }

    #[test]
    fn verdicts_compare_measurements_with_targets() {
        let figures = vec![
            figure(Name::Script, 1, 70),
            figure(Name::Daemon, 1, 1),
            figure(Name::Floor, 1, 1),
            figure(Name::Daemon, 100, 10),
            figure(Name::Daemon, 1000, 200),
        ];
        let upkeep = vec![Upkeep {
            kind: Kind::Vbd,
            devices: 1000,
            resident: 50_000,
            proportional: 0,
            idle_ticks: 0,
        }];
        let report = Report {
            figures,
            upkeep,
            ..Report::default()
        };
        let verdicts = report.verdicts();
        let reached: Vec<bool> = verdicts.iter().map(|verdict| verdict.reached).collect();
        assert_eq!(reached, [true, true, false, false, true]);
    }

    #[test]
    fn unmeasured_script_sizes_are_marked_as_extrapolated() {
        let mut report = Report {
            figures: vec![figure(Name::Script, 10, 700)],
            ..Report::default()
        };
        report.extrapolate_scripts(&[1, 10, 100]);
        assert_eq!(report.time(Kind::Vbd, Name::Script, 100), Some(Duration::from_secs(7)));
        assert!(report.to_string().contains("~7000.00 ms"));
        assert_eq!(report.json()["figures"][1]["extrapolated"], true);
    }
}
