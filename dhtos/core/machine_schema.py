"""The default schema: what a machine of a compute fleet says about itself.

The scales span what is sold and run today (the catalogues in `dhtos.data`, Grid'5000) with room
above; values outside are clamped in the key only, never in the record.
"""

from dhtos.core.scale import Codes, Flag, Hashed, Linear, Log2, Log2p1
from dhtos.core.schema import Attribute, Schema

_GIB = 2**30
_TIB = 2**40
_TRAFFIC = Log2(2**16, 2**38)  # from what an idle machine may see to 2 Tbit/s

ARCHITECTURES = (
    "x86_64", "arm64", "i386", "armv6", "armv7", "ppc64le", "ppc64", "riscv64", "s390x",
    "loongarch64", "mips64", "other",
)  # fmt: skip
"""The words of `arch`; a machine of none of these is "other"."""

MACHINE_SCHEMA = Schema(
    name="machine",
    version=0,
    key_order=("cores", "mem", "gpus", "price", "arch", "site", "disk", "provider"),
    attributes=(
        Attribute("cores", "number", "static", Log2(1, 1024), "", 12, "logical CPUs"),
        Attribute("mem", "number", "static", Log2(_GIB // 4, 64 * _TIB), "B", 14, "main memory"),
        Attribute("disk", "number", "static", Log2(_GIB, 1024 * _TIB), "B", 14, "local disk"),
        Attribute("gpus", "number", "static", Log2p1(0, 31), "", 8, "accelerators"),
        Attribute("arch", "text", "static", Codes(ARCHITECTURES), "", 4, "instruction set"),
        Attribute("gpu_model", "text", "static", Hashed(), doc="model of the accelerators"),
        Attribute("gpu_mem", "number", "static", Log2(_GIB, _TIB), "B", doc="of one accelerator"),
        Attribute("price", "number", "static", Log2(0.001, 256), "/h", 14, "list price an hour"),
        Attribute("site", "text", "static", Hashed(), "", 16, "where it stands"),
        Attribute("region", "text", "static", Hashed(), doc="region of the site"),
        Attribute("provider", "text", "static", Hashed(), "", 14, "who runs it"),
        Attribute("type", "text", "static", Hashed(), doc="instance type or model"),
        Attribute("family", "text", "static", Hashed(), doc="family of the type, or cluster"),
        Attribute("os", "text", "static", Hashed(), doc="operating system"),
        Attribute("python", "text", "static", Hashed(), doc="version of Python, as 3.12"),
        Attribute("cpu_model", "text", "static", Hashed(), doc="model of the CPU"),
        Attribute("clock", "number", "static", Log2(10**8, 10**10), "Hz", doc="base clock"),
        Attribute("host", "text", "static", Hashed(), doc="hash of the host name"),
        Attribute("cpu_free", "number", "dynamic", Linear(0, 100), "%", doc="idle share of CPUs"),
        Attribute("load1", "number", "dynamic", Log2p1(0, 1024), doc="load over one minute"),
        Attribute("mem_free", "number", "dynamic", Log2(2**24, 64 * _TIB), "B", doc="available"),
        Attribute("disk_free", "number", "dynamic", Log2(2**24, 1024 * _TIB), "B", doc="available"),
        Attribute("gpus_free", "number", "dynamic", Log2p1(0, 31), doc="idle accelerators"),
        Attribute("price_spot", "number", "dynamic", Log2(0.001, 256), "/h", doc="price now"),
        Attribute("load_5s", "number", "dynamic", Log2p1(0, 1024), doc="load expected in 5 s"),
        Attribute("load_15s", "number", "dynamic", Log2p1(0, 1024), doc="load expected in 15 s"),
        Attribute("load_error", "number", "dynamic", Log2p1(0, 1024), doc="RMS error of these"),
        Attribute("mem_pressure", "number", "dynamic", Linear(0, 100), "%", doc="stalled for it"),
        Attribute("io_pressure", "number", "dynamic", Linear(0, 100), "%", doc="stalled for it"),
        Attribute("net_in", "number", "dynamic", _TRAFFIC, "B", doc="received in a second"),
        Attribute("net_out", "number", "dynamic", _TRAFFIC, "B", doc="sent in a second"),
        Attribute("temperature", "number", "dynamic", Linear(-40, 125), doc="of the CPU, Celsius"),
        Attribute("battery", "number", "dynamic", Linear(0, 100), "%", doc="how full it is"),
        Attribute("plugged", "bool", "dynamic", Flag(), doc="whether the battery is charged"),
        Attribute("gpu_mem_free", "number", "dynamic", Log2(2**26, _TIB), "B", doc="the most free"),
        Attribute("cores_free", "number", "dynamic", Log2p1(0, 1024), doc="CPUs not granted"),
    ),
)
