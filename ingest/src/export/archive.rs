//! A ZIP archive that goes out while it is made. Of it a piece, the names of its files and what waits for a slow client are in memory.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use zip::CompressionMethod;
use zip::result::ZipError;
use zip::write::{SimpleFileOptions, StreamWriter, ZipWriter};

use crate::http::pieces::Outlet;

/// Bytes of a piece, about: what goes to the client at once.
const PIECE: usize = 64 * 1024;

/// Why an archive was not made.
#[derive(Debug, thiserror::Error)]
pub(super) enum ArchiveError {
    /// Nobody takes it any more.
    #[error("the client has gone")]
    Gone,
    /// A name twice, or more bytes than the format takes.
    #[error(transparent)]
    Zip(#[from] ZipError),
    /// Of the same.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Where the writer of the format writes to; it is emptied after each of its calls.
#[derive(Clone, Debug, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    /// What there is, where it is a piece or `all` is wanted.
    fn take(&self, all: bool) -> Option<Vec<u8>> {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let least = if all { 1 } else { PIECE };
        (bytes.len() >= least).then(|| std::mem::take(&mut *bytes))
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The archive.
pub(super) struct Archive {
    zip: ZipWriter<StreamWriter<Buffer>>,
    buffer: Buffer,
    out: Outlet<io::Error>,
}

impl Archive {
    /// An archive for whoever takes its pieces.
    pub(super) fn new(out: Outlet<io::Error>) -> Self {
        let buffer = Buffer::default();
        Self { zip: ZipWriter::new_stream(buffer.clone()), buffer, out }
    }

    /// Begins a file of text, which is made smaller.
    pub(super) fn begin_text(&mut self, name: &str) -> Result<(), ArchiveError> {
        self.begin(name, CompressionMethod::Deflated)
    }

    /// Begins a file with an array of JSON.
    pub(super) fn begin_array(&mut self, name: &str) -> Result<Array<'_>, ArchiveError> {
        self.begin_text(name)?;
        Ok(Array { archive: self, before: "[\n" })
    }

    /// Begins a photo, which is as small as it gets.
    pub(super) fn begin_photo(&mut self, name: &str) -> Result<(), ArchiveError> {
        self.begin(name, CompressionMethod::Stored)
    }

    fn begin(&mut self, name: &str, method: CompressionMethod) -> Result<(), ArchiveError> {
        let options = SimpleFileOptions::default().compression_method(method);
        Ok(self.zip.start_file(name, options)?)
    }

    /// Writes on in the file that was begun last.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        // A piece at a time: what is written at once is compressed at once.
        for part in bytes.chunks(PIECE) {
            self.zip.write_all(part)?;
            self.send(false).await?;
        }
        Ok(())
    }

    /// Ends the archive.
    pub(super) async fn finish(mut self) -> Result<(), ArchiveError> {
        let zip = std::mem::replace(&mut self.zip, ZipWriter::new_stream(Buffer::default()));
        zip.finish()?;
        self.send(true).await
    }

    async fn send(&self, all: bool) -> Result<(), ArchiveError> {
        match self.buffer.take(all) {
            Some(bytes) => self.out.send(Ok(bytes.into())).await.map_err(|_| ArchiveError::Gone),
            None => Ok(()),
        }
    }
}

/// An array of JSON, the file that was begun last.
pub(super) struct Array<'a> {
    archive: &'a mut Archive,
    /// What stands before the next element.
    before: &'static str,
}

impl Array<'_> {
    /// Writes an element, which is JSON.
    pub(super) async fn push(&mut self, element: &str) -> Result<(), ArchiveError> {
        self.archive.write(self.before.as_bytes()).await?;
        self.before = ",\n";
        self.archive.write(element.as_bytes()).await
    }

    /// Ends it.
    pub(super) async fn end(self) -> Result<(), ArchiveError> {
        let end = if self.before == ",\n" { "\n]\n" } else { "[]\n" };
        self.archive.write(end.as_bytes()).await
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Read as _};

    use bytes::Bytes;
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn an_archive_reads_back_and_goes_out_in_pieces() {
        let (sender, mut receiver) = mpsc::channel(2);
        let photo: Vec<u8> =
            (0..1_000_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
        let making = tokio::spawn({
            let photo = photo.clone();
            async move {
                let mut archive = Archive::new(sender);
                archive.begin_text("rows.json").unwrap();
                for _ in 0..1_000 {
                    archive.write(b"{\"row\": true}\n").await.unwrap();
                }
                archive.begin_photo("photos/one.jpg").unwrap();
                archive.write(&photo).await.unwrap();
                archive.finish().await.unwrap();
            }
        });
        let mut pieces: Vec<Bytes> = Vec::new();
        while let Some(piece) = receiver.recv().await {
            pieces.push(piece.unwrap());
        }
        making.await.unwrap();
        assert!(pieces.len() > 10 && pieces.iter().all(|piece| piece.len() <= 3 * PIECE), "{}", pieces.len());
        let mut read = zip::ZipArchive::new(Cursor::new(pieces.concat())).unwrap();
        let mut text = String::new();
        read.by_name("rows.json").unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text.lines().count(), 1_000);
        let mut stored = Vec::new();
        read.by_name("photos/one.jpg").unwrap().read_to_end(&mut stored).unwrap();
        assert!(stored == photo);
    }

    #[tokio::test]
    async fn an_archive_ends_where_its_client_has_gone() {
        let (sender, receiver) = mpsc::channel(2);
        drop(receiver);
        let mut archive = Archive::new(sender);
        archive.begin_photo("one").unwrap();
        assert!(matches!(archive.write(&[0; 2 * PIECE]).await, Err(ArchiveError::Gone)));
    }
}
