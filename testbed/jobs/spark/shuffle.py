"""A shuffle: rows of incompressible bytes are moved to the executor of their key.

Its last word, one JSON line, is also its termination message.
"""

import json
import sys
import time
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql import functions as f


def main() -> None:
    """shuffle.py ROWS PARTITIONS: about 110 bytes a row cross the shuffle."""
    rows, partitions = int(sys.argv[1]), int(sys.argv[2])
    spark = SparkSession.builder.appName("shuffle").getOrCreate()
    table = spark.range(0, rows, 1, partitions).select(
        f.hash("id").alias("key"),
        *[
            f.unhex(f.sha2(f.concat(f.col("id").cast("string"), f.lit(salt)), 256)).alias(salt)
            for salt in "abc"
        ],
    )
    started_s = time.time()
    moved = table.repartition(partitions, "key")
    count, largest = moved.agg(f.count("*"), f.max("a")).first()
    line = json.dumps(
        {"rows": count, "seconds": round(time.time() - started_s, 2), "digest": largest.hex()[:12]}
    )
    Path("/dev/termination-log").write_text(line)
    print(line)
    spark.stop()


if __name__ == "__main__":
    main()
