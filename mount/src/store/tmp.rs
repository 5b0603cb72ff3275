#![allow(missing_docs)]
use super::*;
use std::os::unix::fs::FileExt;
#[derive(Default)]
pub struct MemoryStore;
pub struct DiskStore(std::path::PathBuf);
impl DiskStore {
    pub fn open(p: &std::path::Path) -> io::Result<DiskStore> {
        let d = p.join(".farshore/partial");
        let _ = std::fs::remove_dir_all(&d);
        std::fs::create_dir_all(&d)?;
        Ok(DiskStore(d))
    }
}
struct F(std::fs::File);
impl Store for DiskStore {
    fn create(&self, c: ContentId, n: u64) -> io::Result<Arc<dyn Stored>> {
        let f = std::fs::File::options().read(true).write(true).create(true).open(self.0.join(c.to_string()))?;
        f.set_len(n)?;
        Ok(Arc::new(F(f)))
    }
}
impl Store for MemoryStore {
    fn create(&self, _: ContentId, _: u64) -> io::Result<Arc<dyn Stored>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
impl Stored for F {
    fn write(self: Arc<Self>, mut offset: u64, frames: Vec<Bytes>) -> BoxFuture<'static, io::Result<()>> {
        Box::pin(async move {
            for f in frames {
                self.0.write_all_at(&f, offset)?;
                offset += f.len() as u64;
            }
            Ok(())
        })
    }
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(into, offset)
    }
    fn keep(
        self: Arc<Self>,
        _: std::path::PathBuf,
        _: u16,
        _: farshore_engine::record::FileTime,
    ) -> BoxFuture<'static, io::Result<()>> {
        todo!()
    }
}
pub fn keep_empty(_: &std::path::Path, _: u16, _: farshore_engine::record::FileTime) -> io::Result<()> {
    todo!()
}
