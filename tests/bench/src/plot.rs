//! Plot of a report: time over the number of devices, both logarithmic, disks and vifs side by side.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::{Name, Report};
use xenplug_tests::harness::Kind;

const SIZE: (u32, u32) = (1100, 480);

impl Report {
    /// Draws the plot as SVG.
    pub fn plot(&self, path: &Path) -> Result<()> {
        let area = SVGBackend::new(path, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let panels = area.split_evenly((1, 2));
        for (panel, (kind, title)) in panels.iter().zip([(Kind::Vbd, "file-backed disk"), (Kind::Vif, "vif")]) {
            self.panel(panel, kind, title)
                .map_err(|error| anyhow!("the plot: {error}"))?;
        }
        area.present()?;
        Ok(())
    }

    fn panel(
        &self,
        area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
        kind: Kind,
        title: &str,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let mut chart = ChartBuilder::on(area)
            .caption(format!("{title}: state=2 to connected"), ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(70)
            .build_cartesian_2d((0.8_f64..1300.0).log_scale(), (0.1_f64..200_000.0).log_scale())?;
        chart
            .configure_mesh()
            .x_desc("devices at once (empty circles: extrapolated)")
            .y_desc("milliseconds, median")
            .x_label_formatter(&|devices| format!("{devices:.0}"))
            .y_label_formatter(&|time| format!("{time}"))
            .light_line_style(TRANSPARENT)
            .draw()?;
        for (name, colour) in [(Name::Script, RED), (Name::Daemon, BLUE), (Name::Floor, BLACK)] {
            let mut points: Vec<(f64, f64, bool)> = self
                .figures
                .iter()
                .filter(|figure| (figure.kind, figure.contestant) == (kind, name))
                .map(|figure| {
                    (
                        f64::from(figure.devices),
                        figure.median.as_secs_f64() * 1e3,
                        figure.runs > 0,
                    )
                })
                .collect();
            points.sort_by(|one, other| one.0.total_cmp(&other.0));
            chart
                .draw_series(LineSeries::new(
                    points.iter().map(|(x, y, _)| (*x, *y)),
                    colour.stroke_width(2),
                ))?
                .label(name.to_string())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
            // An extrapolated figure is an empty circle.
            chart.draw_series(points.iter().map(|(x, y, measured)| {
                let style = if *measured {
                    colour.filled()
                } else {
                    colour.stroke_width(1)
                };
                Circle::new((*x, *y), 4, style)
            }))?;
        }
        chart
            .configure_series_labels()
            .border_style(BLACK)
            .position(SeriesLabelPosition::UpperLeft)
            .draw()?;
        Ok(())
    }
}
