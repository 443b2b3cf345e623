"""Images: what all stages exchange. A table names them, shards hold them, one decoder reads them."""

from augbench.images.pixels import (
    TooManyPixels,
    as_seen,
    decode,
    encode_png,
    grey,
    is_image,
    is_plain,
    open_image,
    portable,
    size_of,
)
from augbench.images.shards import (
    IMAGE_KEYS,
    Member,
    ShardWriter,
    check_shard,
    member_places,
    picture_in,
    read_shard,
    samples,
)
from augbench.images.table import SCHEMA, load, load_bytes, name_of, read, table, write

__all__ = [
    "IMAGE_KEYS",
    "SCHEMA",
    "Member",
    "ShardWriter",
    "TooManyPixels",
    "as_seen",
    "check_shard",
    "decode",
    "encode_png",
    "grey",
    "is_image",
    "is_plain",
    "load",
    "load_bytes",
    "member_places",
    "name_of",
    "open_image",
    "picture_in",
    "portable",
    "read",
    "read_shard",
    "samples",
    "size_of",
    "table",
    "write",
]
