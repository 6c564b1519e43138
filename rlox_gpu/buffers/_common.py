"""What the buffers have in common: dicts of arrays, files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from .._checks import described
from . import _files

if TYPE_CHECKING:
    from typing_extensions import Self

_NEEDED = ("obs", "actions", "rewards", "terminated", "truncated")


def extend_with(
    push_batch: Callable[..., None], batch: Mapping[str, Any], options: tuple[str, ...]
) -> None:
    """Call ``push_batch`` with the entries of ``batch``, and those of ``options`` by their names.

    Raises
    ------
    TypeError, ValueError
        If ``batch`` is no mapping, or a key is missing.
    """
    if not isinstance(batch, Mapping):
        raise TypeError(f"batch: expected a dict of arrays, got {described(batch)}")
    missing = [name for name in _NEEDED if name not in batch]
    if missing:
        raise ValueError(f"batch: expected the keys {', '.join(_NEEDED)}, {missing} are missing")
    obs, *others = (batch[name] for name in _NEEDED)
    more = {name: batch[name] for name in options if name in batch}
    push_batch(obs, batch.get("next_obs"), *others, **more)


class Common:
    """To be combined with a store of the compiled core."""

    # What files call the class.
    kind: ClassVar[str]
    # What the constructor was given, for JSON.
    _settings: dict[str, Any]
    # Keys of a batch that are passed on by their names.
    _row_options: tuple[str, ...] = ("envs",)

    def extend(self, batch: Mapping[str, Any]) -> None:
        """Append the transitions of a dict with the keys of a sample, as ``push_batch`` does.

        ``next_obs`` may be missing, ``envs`` (and ``priorities`` of a prioritised buffer) may be
        there; other keys are not looked at.

        Raises
        ------
        TypeError, ValueError
            If a key is missing, or an array does not fit.
        """
        store: Any = self
        extend_with(store.push_batch, batch, self._row_options)

    def batches(
        self,
        batch_size: int,
        *,
        device: Any = None,
        prefetch: int = 2,
        sample: Callable[..., dict[str, Any]] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Return an endless iterator of samples as torch tensors on a device.

        They are those of ``sample(batch_size)`` under the buffer's own seed, in that order; the
        first one is drawn when it is asked for. For a CUDA device, samples are drawn ahead into
        pinned memory and copied on a stream of their own: the stream that is the current one when
        a sample is asked for waits for its copy, the host does not.

        What happens to the buffer counts for samples that are drawn afterwards. On a CUDA device
        the next ``prefetch`` samples are already drawn: they hold no transition that is pushed
        now, and priorities that are updated now do not count for them. Between a draw and
        ``update_priorities`` a push may have put another transition at one of the ``indices``.

        Parameters
        ----------
        batch_size : int
        device : torch.device or str, optional
            torch's default device if not given.
        prefetch : int
            Samples that are drawn ahead for a CUDA device; with 0, and for other devices, each is
            drawn when it is asked for.
        sample : callable, optional
            What draws instead of the buffer's ``sample``: ``sample(batch_size)`` returns a dict of
            arrays, always of the same shapes and dtypes, and with a parameter ``out`` can write to
            one, as ``functools.partial(buffer.sample_sequences, length=16)`` can.

        Returns
        -------
        iterator of dict
            Tensors with the keys, shapes and dtypes of the arrays of a sample, but int64 for
            uint64: so are ``"indices"``, and ``update_priorities`` takes them. No sample's memory
            is used for another; on a CUDA device the tensors of one sample share an allocation.

        Raises
        ------
        TypeError, ValueError
            If an argument is of the wrong kind or out of range, or torch cannot use the device.

        Notes
        -----
        ``next`` raises what ``sample`` does, while the buffer is empty for instance, and goes on
        where it was when that is over. Samples that are drawn ahead and never asked for are lost:
        those that the buffer draws otherwise, or after ``load``, come after them. An iterator is
        for one thread at a time.
        """
        from .prefetch import batches

        store: Any = self
        return batches(store.sample if sample is None else sample, batch_size, device, prefetch)

    def save(self, path: str | Path) -> None:
        """Write the buffer to a file, whole or not at all.

        A copy of the contents is made in memory first.

        Raises
        ------
        OSError
            If the folder does not exist or cannot be written.
        """
        store: Any = self
        settings = {"kind": self.kind, **self._settings, **self._changed_settings()}
        _files.write(path, store.contents(), settings)

    @classmethod
    def load(cls, path: str | Path, **options: Any) -> Self:
        """Return the buffer that ``save`` wrote: its further samples are those of the original.

        Nothing in the file is executed. ``options`` are arguments that a file does not hold: the
        ``device``, the ``reward_fn`` of a hindsight buffer.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is truncated, damaged, or that of another kind of buffer.
        """
        contents, settings = _files.read(path, cls.kind)
        try:
            made: Any = cls._remade(settings, options)
            made.restore(contents)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: a damaged buffer's file ({error})") from error
        return made  # type: ignore[no-any-return]

    @classmethod
    def _remade(cls, settings: dict[str, Any], options: dict[str, Any]) -> Self:
        return cls(**settings, **options)

    def _changed_settings(self) -> dict[str, Any]:
        return {}

    def __repr__(self) -> str:
        store: Any = self
        return f"{type(self).__name__}({len(store)} of {store.capacity} transitions)"
