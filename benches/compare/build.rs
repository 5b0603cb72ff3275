//! Compiles the wire format of the raw stream without `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/bulk.proto");
    let files = protox::compile(["proto/bulk.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".")
        .codec_path("farshore_proto::codec::StrictCodec")
        .emit_rerun_if_changed(false)
        .compile_fds(files)?;
    Ok(())
}
