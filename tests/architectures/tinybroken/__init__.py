"""Cannot be imported where the tests run."""

import no_such_package_of_localapis_tests  # type: ignore[import-not-found]  # noqa: F401
