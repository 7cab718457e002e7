"""The public names of the specification, exactly: paths, signatures, members, fields. They are fixed."""

from __future__ import annotations

import dataclasses
import importlib
import inspect

import pytest

ENUMS = {
    "CollectionStatus": "IDLE RUNNING PAUSED STOPPED ERROR",
    "TaskStatus": "PENDING RUNNING COMPLETED FAILED CANCELLED",
    "EventType": (
        "COLLECTION_START COLLECTION_COMPLETE PROCESSING_START PROCESSING_COMPLETE STORAGE_START "
        "STORAGE_COMPLETE ERROR_OCCURRED"
    ),
    "ErrorType": "CONFIGURATION CONNECTION VALIDATION PROCESSING STORAGE",
}
MODELS = {
    "CollectedData": "source_id timestamp data_format collection_method raw_data metadata",
    "ParsedMetadata": "schema quality_indicators source_attributes is_valid validation_errors",
    "CollectionTask": "task_id source_id status created_at started_at stopped_at",
    "CollectionStatistics": "success_count failure_count average_processing_time last_collection_time",
    "ProcessingResult": "success processed_data error processing_time",
    "PipelineStep": "step_id processor order",
    "PipelineResult": "success final_data step_results failed_step total_time",
    "ProcessingStatistics": "step_name execution_count success_count failure_count average_time",
    "StorageLocation": "backend_id location_id path created_at",
    "QueryCriteria": "filters sort_by limit offset",
    "StorageStatistics": "backend_id stored_count storage_usage_bytes last_storage_time",
    "ErrorInfo": "error_type timestamp layer_name operation message details is_critical",
    "SystemEvent": "event_type timestamp source data",
    "TaskInfo": "task_id task_type status created_at started_at completed_at progress result error",
}
INTERFACES = {
    "collection": {
        "IDataSource": [
            "async connect()",
            "async disconnect()",
            "async collect()",
            "collect_stream()",
            "get_source_id()",
        ],
        "IMetadataParser": ["async parse(collected_data)", "async validate(metadata)"],
        "ICollectionManager": [
            "async register_source(source, config)",
            "async unregister_source(source_id)",
            "async start_collection(source_id)",
            "async stop_collection(task_id)",
            "async get_task_status(task_id)",
            "async get_statistics(source_id)",
        ],
    },
    "processing": {
        "IProcessor": ["async process(data)", "get_processor_name()", "validate_input(data)"],
        "IPipeline": [
            "async add_step(processor, order)",
            "async remove_step(step_id)",
            "async execute(input_data)",
            "get_steps()",
        ],
        "IProcessingManager": [
            "async register_processor(processor)",
            "async unregister_processor(processor_id)",
            "async create_pipeline(pipeline_id)",
            "async get_pipeline(pipeline_id)",
            "async delete_pipeline(pipeline_id)",
            "async get_statistics(pipeline_id)",
        ],
    },
    "storage": {
        "IStorageBackend": [
            "async connect()",
            "async disconnect()",
            "async store(data)",
            "async query(criteria)",
            "async delete(location_id)",
            "get_backend_id()",
        ],
        "IStorageManager": [
            "async register_backend(backend, config)",
            "async unregister_backend(backend_id)",
            "async store_data(backend_id, data)",
            "async query_data(backend_id, criteria)",
            "async get_statistics(backend_id)",
        ],
    },
    "crosscutting": {
        "IErrorHandler": ["async handle_error(error)", "can_handle(error_type)"],
        "IEventEmitter": [
            "async emit(event)",
            "async subscribe(event_type, handler)",
            "async unsubscribe(subscription_id)",
        ],
        "ITaskTracker": [
            "async create_task(task_type)",
            "async update_status(task_id, status)",
            "async update_progress(task_id, progress)",
            "async get_task_info(task_id)",
            "async cancel_task(task_id)",
        ],
    },
    "factories": {
        "ICollectionLayerFactory": ["create_collection_manager()", "create_metadata_parser()"],
        "IProcessingLayerFactory": ["create_processing_manager()", "create_pipeline()"],
        "IStorageLayerFactory": ["create_storage_manager()"],
    },
}
MOCKS = {
    "MockDataSource": (
        "IDataSource",
        ["(source_id, data=b'mock_data')", "is_connected()", "get_collect_count()"],
    ),
    "MockMetadataParser": ("IMetadataParser", ["(validation_result=True)", "get_parse_count()"]),
    "MockProcessor": ("IProcessor", ["(name, should_fail=False)", "get_process_count()"]),
    "MockStorageBackend": (
        "IStorageBackend",
        [
            "(backend_id)",
            "is_connected()",
            "get_store_count()",
            "get_stored_data(location_id)",
            "get_all_stored_data()",
        ],
    ),
    "MockErrorHandler": (
        "IErrorHandler",
        ["(handled_types=None)", "get_handled_errors()", "get_error_count()", "clear_errors()"],
    ),
    "MockEventEmitter": (
        "IEventEmitter",
        [
            "()",
            "get_emitted_events()",
            "get_event_count(event_type=None)",
            "clear_events()",
            "get_subscription_count()",
        ],
    ),
    "MockTaskTracker": (
        "ITaskTracker",
        ["()", "get_all_tasks()", "get_task_count(status=None)", "clear_tasks()"],
    ),
}
EXAMPLES = [
    "example_basic_collection",
    "example_stream_collection",
    "example_processing_pipeline",
    "example_data_storage",
    "example_error_handling",
    "example_event_system",
    "example_complete_pipeline",
    "example_custom_data_source",
    "run_all_examples",
]
METHODS = {name: methods for module in INTERFACES.values() for name, methods in module.items()}
REAL = {
    "collectors.collection.manager.CollectionManager": "ICollectionManager",
    "collectors.collection.metadata.MetadataParser": "IMetadataParser",
    "collectors.collection.base.Source": "IDataSource",
    "collectors.processing.manager.ProcessingManager": "IProcessingManager",
    "collectors.processing.manager.FunctionProcessor": "IProcessor",
    "collectors.processing.pipeline.Pipeline": "IPipeline",
    "collectors.processing.base.Processor": "IProcessor",
    "collectors.storage.manager.StorageManager": "IStorageManager",
    "collectors.storage.base.Backend": "IStorageBackend",
    "collectors.crosscutting.error_handler.ErrorHandler": "IErrorHandler",
    "collectors.crosscutting.error_handler.ErrorHandlerRegistry": "IErrorHandler",
    "collectors.crosscutting.event_emitter.EventEmitter": "IEventEmitter",
    "collectors.crosscutting.task_tracker.TaskTracker": "ITaskTracker",
    "collectors.factories.CollectionLayerFactory": "ICollectionLayerFactory",
    "collectors.factories.ProcessingLayerFactory": "IProcessingLayerFactory",
    "collectors.factories.StorageLayerFactory": "IStorageLayerFactory",
}


def named(path):
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def written(function, name=None):
    """Return a function as the tables above write it, and that each parameter can be passed both ways."""
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]
    assert all(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters), function
    shown = [p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in parameters]
    text = f"{function.__name__ if name is None else name}({', '.join(shown)})"
    return f"async {text}" if inspect.iscoroutinefunction(function) else text


def method_name(text):
    return text.removeprefix("async ").partition("(")[0]


@pytest.mark.parametrize("name", ENUMS)
def test_enum_members_and_values(name):
    enum = named(f"collectors.enums.{name}")
    assert [(member.name, member.value) for member in enum] == [
        (member, member.lower()) for member in ENUMS[name].split()
    ]


@pytest.mark.parametrize("name", MODELS)
def test_model_fields_in_order_without_defaults(name):
    model = named(f"collectors.models.{name}")
    fields = dataclasses.fields(model)
    expected = MODELS[name].split()
    assert [field.name for field in fields[: len(expected)]] == expected
    for field in fields:
        optional = (field.default, field.default_factory) != (dataclasses.MISSING, dataclasses.MISSING)
        assert optional is (field.name not in expected), field.name
        assert field.init
        assert not field.kw_only
    made = model(*range(len(expected)))
    assert [getattr(made, field) for field in expected] == list(range(len(expected)))


@pytest.mark.parametrize("name", METHODS)
def test_interface_has_exactly_these_methods(name):
    (module,) = [module for module, members in INTERFACES.items() if name in members]
    interface = named(f"collectors.interfaces.{module}.{name}")
    assert inspect.isabstract(interface)
    assert interface.__abstractmethods__ == {method_name(text) for text in METHODS[name]}
    assert [written(getattr(interface, method_name(text))) for text in METHODS[name]] == METHODS[name]
    assert named(f"collectors.interfaces.{name}") is interface


@pytest.mark.parametrize("name", MOCKS)
def test_mock_signatures(name):
    interface, (constructor, *more) = MOCKS[name]
    mock = named(f"collectors.mocks.{name}")
    assert issubclass(mock, named(f"collectors.interfaces.{interface}"))
    assert not inspect.isabstract(mock)
    assert written(mock.__init__, "") == constructor
    for text in [*METHODS[interface], *more]:
        assert written(getattr(mock, method_name(text))) == text


@pytest.mark.parametrize("path", REAL)
def test_implementations_can_be_called_as_their_interface_says(path):
    implementation = named(path)
    assert issubclass(implementation, named(f"collectors.interfaces.{REAL[path]}"))
    for text in METHODS[REAL[path]]:
        assert written(getattr(implementation, method_name(text))) == text


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_coroutines_without_arguments(name):
    assert written(named(f"collectors.examples.{name}")) == f"async {name}()"


HOMES = {
    "collectors.enums": list(ENUMS),
    "collectors.models": list(MODELS),
    "collectors.interfaces": list(METHODS),
    "collectors.mocks": list(MOCKS),
    "collectors.examples": EXAMPLES,
}


@pytest.mark.parametrize("home", HOMES)
def test_package_re_exports_every_name(home):
    package, module = importlib.import_module("collectors"), importlib.import_module(home)
    for name in HOMES[home]:
        assert getattr(package, name) is getattr(module, name)
        assert name in package.__all__
        assert name in dir(package)
        assert name in module.__all__


def test_unknown_name_is_refused():
    with pytest.raises(ImportError, match="IDataSorce"):
        exec("from collectors import IDataSorce", {})


def test_all_names_come_with_a_star():
    space = {}
    exec("from collectors import *", space)
    assert {name for names in HOMES.values() for name in names} <= set(space)
