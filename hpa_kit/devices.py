"""Which device to run on."""

from hpa_kit.errors import InputError


def pick_device(name: str) -> str:
    """``auto`` -> cuda where it works, else cpu; any other name is tried and refused where it does not work.

    A card that torch no longer supports is still reported as available, so a tiny operation is run on it.

    Raises:
        InputError: a device was named that torch cannot use here.
    """
    import torch

    wanted = "cuda" if name == "auto" and torch.cuda.is_available() else "cpu" if name == "auto" else name
    try:
        device = torch.device(wanted)
        (torch.ones(8, device=device) + 1).sum().item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if name == "auto":
            return "cpu"
        raise InputError(
            f"device: {name!r} cannot be used here ({reason}); use auto, cpu, cuda or cuda:0"
        ) from None
    return str(device)
