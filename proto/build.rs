//! Compiles the wire format without `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/farshore.proto");
    let files = protox::compile(["proto/farshore.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".")
        .codec_path("crate::codec::StrictCodec")
        .emit_rerun_if_changed(false)
        .compile_fds(files)?;
    Ok(())
}
