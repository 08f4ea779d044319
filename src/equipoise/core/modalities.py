"""Which parameters belong to which modality."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor, nn


class Modalities:
    """Names of modalities (or of fusion branches) and the parameters that each of them owns.

    It is no `nn.Module`, so a user's weights never enter a balancer's ``state_dict``.

    Args:
        **groups: a module, or an iterable of parameters or modules, for each name.

    Raises:
        ValueError: fewer than two names, a name without a trainable parameter, or a parameter under two names.
        TypeError: a value that is neither a module nor an iterable of parameters or modules.

    Example:
        >>> from torch import nn
        >>> Modalities(text=nn.Linear(3, 2), audio=[nn.Linear(4, 2), nn.Linear(2, 2)])
        Modalities(text=2, audio=4)
    """

    def __init__(self, **groups: nn.Module | Iterable[nn.Parameter | nn.Module]) -> None:
        if len(groups) < 2:
            raise ValueError(f"`Modalities` needs at least two names. Found {list(groups)}.")
        self._groups = {name: _parameters(name, group) for name, group in groups.items()}
        owner: dict[int, str] = {}
        for name, parameters in self._groups.items():
            if not any(p.requires_grad for p in parameters):
                raise ValueError(
                    f"Modality `{name}` should own at least one trainable parameter. Found {len(parameters)} "
                    "parameters, all frozen. Leave it out, or unfreeze it before building `Modalities`."
                )
            for parameter in parameters:
                other = owner.setdefault(id(parameter), name)
                if other != name:
                    raise ValueError(
                        f"Modalities should not share parameters. Found one of shape {tuple(parameter.shape)} under "
                        f"`{other}` and `{name}`. Leave shared modules out of both."
                    )

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in the order given."""
        return tuple(self._groups)

    def parameters(self, name: str) -> list[nn.Parameter]:
        """All parameters of one modality."""
        return self._groups[name]

    def gradients(self, name: str) -> list[Tensor]:
        """The gradients that one modality has now; parameters without one are passed over."""
        return [p.grad for p in self._groups[name] if p.grad is not None]

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[str]:
        return iter(self._groups)

    def __contains__(self, name: object) -> bool:
        return name in self._groups

    def __repr__(self) -> str:
        return f"Modalities({', '.join(f'{name}={len(group)}' for name, group in self._groups.items())})"


def _parameters(name: str, group: object) -> list[nn.Parameter]:
    if isinstance(group, nn.Module):
        found = list(group.parameters())
    elif isinstance(group, nn.Parameter):
        found = [group]
    elif isinstance(group, Iterable) and not isinstance(group, (str, Tensor)):  # a string holds strings without end
        found = [parameter for part in group for parameter in _parameters(name, part)]
    else:
        raise TypeError(
            f"Modality `{name}` should be a module or an iterable of parameters or modules. "
            f"Found {type(group).__name__}."
        )
    return list({id(parameter): parameter for parameter in found}.values())
