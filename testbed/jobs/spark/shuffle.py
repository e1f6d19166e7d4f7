"""A shuffle: padded rows are moved to the executor of their key.

Making a row costs next to nothing, so that the time is that of moving them; shuffles are not
compressed (spark.shuffle.compress=false), so that the padding is really sent. Its last word, one JSON
line, is also its termination message.
"""

import json
import sys
import time
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql import functions as f

PAYLOAD_BYTES = 1000


def main() -> None:
    """shuffle.py ROWS PARTITIONS: about 1030 bytes a row cross the shuffle."""
    rows, partitions = int(sys.argv[1]), int(sys.argv[2])
    spark = SparkSession.builder.appName("shuffle").getOrCreate()
    payload = f.lpad(f.col("id").cast("string"), PAYLOAD_BYTES, "-")
    table = spark.range(0, rows, 1, partitions).select(f.hash("id").alias("key"), payload.alias("payload"))
    started_s = time.time()
    moved = table.repartition(partitions, "key")
    count, largest = moved.agg(f.count("*"), f.max("payload")).first()
    seconds = round(time.time() - started_s, 2)
    if (count, int(largest.lstrip("-"))) != (rows, rows - 1):
        raise SystemExit(f"{count} of {rows} rows arrived, the last of them {largest.lstrip('-')}")
    line = json.dumps({"rows": count, "seconds": seconds})
    Path("/dev/termination-log").write_text(line)
    print(line)
    spark.stop()


if __name__ == "__main__":
    main()
