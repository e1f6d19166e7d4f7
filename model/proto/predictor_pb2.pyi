from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class PredictRequest(_message.Message):
    __slots__ = ("schema_version", "nodes", "features", "contributions", "job_class", "feature_names")
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    JOB_CLASS_FIELD_NUMBER: _ClassVar[int]
    FEATURE_NAMES_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    nodes: _containers.RepeatedScalarFieldContainer[str]
    features: bytes
    contributions: bool
    job_class: str
    feature_names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, schema_version: _Optional[int] = ..., nodes: _Optional[_Iterable[str]] = ..., features: _Optional[bytes] = ..., contributions: _Optional[bool] = ..., job_class: _Optional[str] = ..., feature_names: _Optional[_Iterable[str]] = ...) -> None: ...

class PredictReply(_message.Message):
    __slots__ = ("model_version", "p10_s", "p50_s", "p90_s", "contributions")
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    P10_S_FIELD_NUMBER: _ClassVar[int]
    P50_S_FIELD_NUMBER: _ClassVar[int]
    P90_S_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    model_version: str
    p10_s: _containers.RepeatedScalarFieldContainer[float]
    p50_s: _containers.RepeatedScalarFieldContainer[float]
    p90_s: _containers.RepeatedScalarFieldContainer[float]
    contributions: bytes
    def __init__(self, model_version: _Optional[str] = ..., p10_s: _Optional[_Iterable[float]] = ..., p50_s: _Optional[_Iterable[float]] = ..., p90_s: _Optional[_Iterable[float]] = ..., contributions: _Optional[bytes] = ...) -> None: ...

class CurrentModelRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CurrentModelReply(_message.Message):
    __slots__ = ("model_version", "schema_version", "trained_at_s", "examples", "problem")
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    TRAINED_AT_S_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    model_version: str
    schema_version: int
    trained_at_s: float
    examples: int
    problem: str
    def __init__(self, model_version: _Optional[str] = ..., schema_version: _Optional[int] = ..., trained_at_s: _Optional[float] = ..., examples: _Optional[int] = ..., problem: _Optional[str] = ...) -> None: ...
