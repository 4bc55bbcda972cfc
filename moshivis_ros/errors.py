"""Errors a user can act on: every message says what is wrong and what to do about it."""


class MoshiVisError(Exception):
    """Base of every error this package raises on purpose."""


class CheckpointError(MoshiVisError):
    """A checkpoint is missing, incomplete, damaged or does not fit."""


class ConfigError(MoshiVisError, ValueError):
    """A setting is out of range, unknown or contradicts another."""


class AudioError(MoshiVisError, ValueError):
    """Sound that cannot be used: wrong rate, channel count, length or samples."""


class WordsError(MoshiVisError, ValueError):
    """Text that the model cannot say, or that cannot be spoken to it."""


class ImageError(MoshiVisError, ValueError):
    """A picture that cannot be used: wrong shape, type, size or encoding."""


class OutputError(MoshiVisError):
    """A file that cannot be written, or not there."""


class RecordingError(MoshiVisError):
    """A recorded conversation that is not there, damaged, or without what is wanted of it."""


class EndpointError(MoshiVisError):
    """A server of a language model that does not answer, or not as it should."""


class MissingDependencyError(MoshiVisError, ImportError):
    """An optional library is needed here and is not installed."""
