//! The live table: one line a photo.

use comfy_table::{ContentArrangement, Table, presets};

use crate::client::{Posted, RewardView, UploadView};
use crate::scenario::Sample;

/// What is known of one photo.
#[derive(Clone, Debug)]
pub struct Row {
    /// The sample.
    pub sample: Sample,
    /// The gateway's response, once posted.
    pub posted: Option<Posted>,
    /// The newest state.
    pub view: Option<UploadView>,
}

impl Row {
    /// Whether nothing more is to come: refused, decided for good with its reward paid, or waiting for a person.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        match &self.posted {
            None => false,
            Some(Posted::Refused { .. }) => true,
            Some(Posted::Accepted { .. }) => self.view.as_ref().is_some_and(|view| {
                // A distance earns a reward, which the tables show a moment after the verdict, and which is paid then.
                let paid = view.reward.as_ref().is_some_and(RewardView::is_settled);
                view.verdict.is_some() && (paid || !view.earns())
            }),
        }
    }

    fn cells(&self) -> [String; 7] {
        let view = self.view.clone().unwrap_or_default();
        let (stage, outcome) = match &self.posted {
            None => ("not sent".to_owned(), String::new()),
            Some(Posted::Refused { status, code, .. }) => (format!("refused {status}"), code.clone()),
            Some(Posted::Accepted { .. }) => {
                let outcome = match (&view.verdict, &view.reason) {
                    (Some(verdict), Some(reason)) => format!("{verdict}: {reason}"),
                    (Some(verdict), None) => verdict.clone(),
                    (None, _) => String::new(),
                };
                (view.stage.unwrap_or_else(|| "uploaded".into()), outcome)
            }
        };
        let reading = view.reading.map(|value| format!("{value} {}", view.unit.unwrap_or_default()));
        let reward = view.reward.and_then(|reward| reward.total).map(|total| format!("{total} B3TR"));
        let payout = view.payout.map(|payout| {
            let tx = payout.tx_id.unwrap_or_default().chars().take(12).collect::<String>();
            format!("{tx} {}/12", payout.confirmations.unwrap_or_default())
        });
        [
            self.sample.file.clone(),
            self.sample.driver.clone(),
            stage,
            outcome,
            reading.unwrap_or_default(),
            view.distance_km.map(|km| format!("{km} km")).unwrap_or_default(),
            [reward, payout].into_iter().flatten().collect::<Vec<_>>().join(", "),
        ]
    }
}

/// The table as text.
#[must_use]
pub fn render(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["photo", "driver", "stage", "verdict", "reading", "distance", "reward and payment"]);
    for row in rows {
        table.add_row(row.cells());
    }
    table.to_string()
}
