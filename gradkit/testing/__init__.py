"""The laws every transform owes its users, to be run on your own.

    import optax
    from gradkit.testing import LAWS, check

    print(check(optax.adamw))                    # a factory: its hyperparameters are varied
    print(check(optax.chain(my_tx, other_tx)))   # a ready transform
    table = check(my_factory, xfail={"abstract_init": "keeps a copy of the parameters"})
    assert table.ok, str(table)

    LAWS["zero_gradient"](my_factory)            # one law: an AssertionError that names the leaf

Sharding needs 8 devices: set `XLA_FLAGS=--xla_force_host_platform_device_count=8` before jax
starts. `help(LAWS["jit"])` says what breaks where a law does not hold.
"""

from gradkit.testing._compare import Unavailable as Unavailable
from gradkit.testing._compare import Undocumented as Undocumented
from gradkit.testing._stated import stated_in as stated_in
from gradkit.testing._subject import Subject as Subject
from gradkit.testing._table import LAWS as LAWS
from gradkit.testing._table import Row as Row
from gradkit.testing._table import Table as Table
from gradkit.testing._table import check as check
