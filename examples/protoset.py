"""Write the KServe v2 service's descriptors, as tritonclient brings them, for tools that read a protoset.

python examples/protoset.py FILE

The server has no reflection, so tools must be given the service. Any language's stubs come from the same place:
grpc_service.proto and model_config.proto of https://github.com/triton-inference-server/common (BSD-3-Clause), or
from this file: `protoc --descriptor_set_in=FILE --go_out=. grpc_service.proto`.
"""

import sys
from pathlib import Path

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor
from tritonclient.grpc import service_pb2

found: dict[str, FileDescriptor] = {}


def collect(file: FileDescriptor) -> None:
    """Collect a file after the files that it imports."""
    for imported in file.dependencies:
        collect(imported)
    found.setdefault(file.name, file)


collect(service_pb2.DESCRIPTOR)
protoset = descriptor_pb2.FileDescriptorSet()
for one in found.values():
    one.CopyToProto(protoset.file.add())
Path(sys.argv[1]).write_bytes(protoset.SerializeToString())
