"""Folders of shards without a bucket."""

from pathlib import Path

from trainer.dataset import fingerprint_of, scan
from trainer.shards import MANIFEST, Manifest, Shard, describe, pack, partition


def make_shards(data: Path, folder: Path, shard_bytes: int = 20_000) -> Manifest:
    """Write the shards of a data folder in which every file is a photo."""
    found = scan(data)
    folder.mkdir(parents=True)
    shards, digests = [], {}
    for split, files in found.files.items():
        sizes = {file: (data / file).stat().st_size for file in files}
        for number, group in enumerate(partition(sizes, shard_bytes)):
            described = describe(data, split, group)
            digests |= described.digests
            name = f"{split}-{number:016x}.1.tar"
            with (folder / name).open("wb") as tar:
                pack(data, described, tar)
            shards.append(
                Shard(name, split, described.sha256, described.bytes, len(group), skipped=())
            )
    fingerprint = fingerprint_of(digests.items())
    manifest = Manifest(
        generation=1,
        contents=fingerprint,
        fingerprint=fingerprint,
        classes=found.classes,
        source=None,
        shards=tuple(shards),
    )
    (folder / MANIFEST).write_text(manifest.to_text())
    return manifest
