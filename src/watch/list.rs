//! The first complete list of a kind, streamed or in pages.

use std::time::Instant;

use kube::api::ListParams;

use super::{
    api::Watcher,
    decode::{self, Line},
    failure::Failure,
    kinds::Trimmed,
    lines::Lines,
};
use crate::object::Event;

/// Objects in one page; what client-go uses as well.
const PAGE: u32 = 500;

impl<T: Trimmed> Watcher<T> {
    /// Reads the initial list from the beginning of a watch and returns the version it is complete at.
    pub(super) async fn streamed_list(&mut self, lines: &mut Lines) -> Result<String, Failure> {
        self.outlet.event(Instant::now(), Event::ListBegin(T::KIND)).await?;
        loop {
            let Some(text) = lines.next().await? else {
                return Err(Failure::Connection("the connection ended in the middle of the list".to_owned()));
            };
            let received = Instant::now();
            match decode::line::<T>(text).map_err(|error| Failure::nonsense(&error))? {
                Line::Added(object) | Line::Modified(object) => {
                    self.outlet.event(received, Event::Apply(Box::new(object.into_object()))).await?;
                }
                Line::Deleted(name, _) => self.outlet.event(received, Event::Delete(T::KIND, name)).await?,
                Line::Bookmark(version, true) => {
                    self.outlet.event(received, Event::ListEnd(T::KIND)).await?;
                    return Ok(version);
                }
                Line::Bookmark(_, false) => {}
                Line::Error(code, message) => return Err(Failure::answer(code, message)),
                Line::Bad(bad, _) => self.bad_object(&bad).await?,
                Line::Unknown(kind) => self.unknown_line(&kind).await?,
            }
        }
    }

    /// Reads the list page by page and returns the version it is complete at.
    pub(super) async fn paged_list(&mut self) -> Result<String, Failure> {
        let mut token = None;
        loop {
            let parameters = ListParams {
                label_selector: self.query.labels.clone(),
                field_selector: self.query.fields.clone(),
                limit: Some(PAGE),
                continue_token: token.clone(),
                ..ListParams::default()
            };
            let request = self.request().list(&parameters).map_err(|error| Failure::Connection(error.to_string()))?;
            let text = tokio::time::timeout(self.timing.answer, self.client.request_text(request));
            let text = text.await.map_err(|_| Failure::no_answer(self.timing.answer))??;
            let received = Instant::now();
            let page = decode::page::<T>(text.as_bytes()).map_err(|error| Failure::nonsense(&error))?;
            drop(text);
            if token.is_none() {
                self.outlet.event(received, Event::ListBegin(T::KIND)).await?;
            }
            for bad in &page.bad {
                self.bad_object(bad).await?;
            }
            for object in page.items {
                self.outlet.event(received, Event::Apply(Box::new(object.into_object()))).await?;
            }
            if page.token.is_empty() {
                self.outlet.event(received, Event::ListEnd(T::KIND)).await?;
                return Ok(page.version);
            }
            token = Some(page.token);
        }
    }
}
