"""Calls to DynamoDB that end in time, and its many errors as the few of Sked."""

from __future__ import annotations

import logging
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import boto3  # type: ignore[import-untyped]
import botocore.config  # type: ignore[import-untyped]
import botocore.exceptions as aws  # type: ignore[import-untyped]
import botocore.loaders  # type: ignore[import-untyped]
import botocore.session  # type: ignore[import-untyped]

from sked_core.plugin import Denied, InvalidValue, SkedError, Unavailable
from sked_dynamodb.address import Address
from sked_dynamodb.records import HEAD, Head, Item, head_of, key_of

log = logging.getLogger("sked.dynamodb")

CONNECT_SECONDS, ANSWER_SECONDS = 2.0, 4.0
TRY_SECONDS = 5.0
"""How long a call is tried again. With the last try's own limits, every call ends within about ten seconds."""
MOST_CONNECTIONS = 8
BATCH_GET = 100

_BUSY = (
    "TransactionConflict",
    "TransactionConflictException",
    "TransactionInProgressException",
    "ProvisionedThroughputExceeded",
    "ProvisionedThroughputExceededException",
    "ThrottlingError",
    "ThrottlingException",
    "Throttling",
    "RequestLimitExceeded",
    "LimitExceededException",
)
_WHO = (
    "UnrecognizedClientException",
    "InvalidSignatureException",
    "IncompleteSignature",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "ExpiredTokenException",
    "InvalidClientTokenId",
    "ExpiredToken",
)
_NEEDED = {
    "TransactWriteItems": "dynamodb:PutItem, dynamodb:DeleteItem and dynamodb:ConditionCheckItem",
    "BatchGetItem": "dynamodb:BatchGetItem",
}
_MODELS = botocore.loaders.create_loader()
"""Amazon's description of its services, which takes long to read: once per process is enough."""
_SURE = {"describe_table": "Table", "create_table": "TableDescription", "delete_table": "TableDescription"}
"""What DynamoDB never leaves out of its answer to an operation; to all others it sends what they consumed."""
_CREDENTIALS = (aws.NoCredentialsError, aws.PartialCredentialsError, aws.CredentialRetrievalError)


class Busy(Unavailable):
    """Throttled, or another transaction was at the same item: nothing was done, try again."""


class Broken(Unavailable):
    """The connection or the server failed at once: a call without effects, or one that may be repeated, is."""


class Missing(Unavailable):
    """The table does not exist."""


class ConditionFailed(Exception):
    """The condition of a single write did not hold."""


class Cancelled(Exception):
    """A transaction was not carried out. ``reasons``: one per item, in order; ``Code`` is ``None`` for an innocent."""

    def __init__(self, reasons: Sequence[Mapping[str, Any]]) -> None:
        super().__init__("transaction cancelled")
        self.reasons = reasons

    def failed(self) -> list[int]:
        """The places of the items whose condition did not hold."""
        return [place for place, reason in enumerate(self.reasons) if reason.get("Code") == "ConditionalCheckFailed"]


class Client:
    """One table of one endpoint. May be used from any thread.

    ``prepare`` sees to it that the table is there. It is called before the first use, and again after the table was
    found to be gone: an empty store is for the core to judge, which knows the store's identity.
    """

    def __init__(self, address: Address, prepare: Callable[[Client], None]) -> None:
        self._closed = False
        self._prepare, self._preparing, self._ready = prepare, threading.Lock(), False
        settings = botocore.config.Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=ANSWER_SECONDS,
            retries={"total_max_attempts": 1},  # tried again here, where it is known what a repetition means
            max_pool_connections=MOST_CONNECTIONS,
            tcp_keepalive=True,
            user_agent_extra="sked",
        )
        try:
            session = botocore.session.Session()
            session.register_component("data_loader", _MODELS)
            self._aws = boto3.session.Session(botocore_session=session).client(
                "dynamodb",
                region_name=address.region or None,
                endpoint_url=address.endpoint or None,
                config=settings,
            )
        except aws.NoRegionError:
            raise InvalidValue(
                "no AWS region is known", hint="name it in the URL (dynamodb://eu-central-1/sked) or in AWS_REGION"
            ) from None
        except (aws.BotoCoreError, ValueError) as error:
            raise InvalidValue(f"boto3 can't be set up: {str(error)[:200]}") from None
        self.address = replace(address, region=address.region or self._aws.meta.region_name or "")

    def close(self) -> None:
        """End all connections; calls from now on raise Unavailable. Idempotent."""
        self._closed = True
        self._aws.close()

    def call(self, operation: str, **arguments: Any) -> Any:
        """The answer to ``operation`` (as botocore's client calls it), tried again while that is harmless.

        Everything that is called so has the same effect twice as once. Raises ConditionFailed, Denied, InvalidValue,
        Unavailable.
        """
        until = time.monotonic() + TRY_SECONDS
        tries = pauses()
        while True:
            try:
                return self.once(operation, **arguments)
            except (Busy, Broken):
                pause = next(tries)
                if time.monotonic() + pause > until:
                    raise
            time.sleep(pause)

    def once(self, operation: str, **arguments: Any) -> Any:
        """As ``call``, without a second try; raises Cancelled too. ``transact_write_items``: after an Unavailable
        other than Busy it is unknown whether it was carried out."""
        if self._closed:
            raise Unavailable("this client of DynamoDB was closed")
        sure = _SURE.get(operation, "ConsumedCapacity")
        if sure == "ConsumedCapacity":
            self._table_first()
            arguments["ReturnConsumedCapacity"] = "TOTAL"
        if operation not in ("transact_write_items", "batch_get_item"):
            arguments["TableName"] = self.address.table
        try:
            answer = getattr(self._aws, operation)(**arguments)
        except aws.ClientError as error:
            raise self._meaning(error) from None
        except _CREDENTIALS as error:
            raise Denied(
                f"boto3 finds no credentials for DynamoDB ({str(error)[:200]})",
                hint="set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role",
            ) from None
        except aws.ParamValidationError as error:
            raise InvalidValue(f"boto3 refuses what was to be sent: {str(error)[:300]}") from None
        except (aws.ConnectTimeoutError, aws.ReadTimeoutError):
            raise Unavailable(
                f"no answer from DynamoDB within {ANSWER_SECONDS:g} s ({self.address})", hint=self._hint()
            ) from None
        except aws.EndpointConnectionError as error:
            raise Unavailable(f"cannot reach DynamoDB ({self.address}): {_cause(error)}", hint=self._hint()) from None
        except (aws.BotoCoreError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise Broken(
                f"the connection to DynamoDB broke ({self.address}): {_cause(error)}", hint=self._hint()
            ) from None
        # Without this, botocore takes any page that comes with status 200 for an item that is not there.
        if not isinstance(answer, dict) or sure not in answer:
            raise self.nonsense(f"its answer to {operation} lacks what DynamoDB always sends")
        return answer

    def _table_first(self) -> None:
        if self._ready:
            return
        if not self._preparing.acquire(timeout=TRY_SECONDS):
            raise Unavailable(f"it is not known yet whether there is a {self.address}", hint=self._hint())
        try:
            if not self._ready:
                self._prepare(self)
                self._ready = True
        finally:
            self._preparing.release()

    # --- reading

    def head(self) -> Head:
        """The last commit, read consistently."""
        try:
            return head_of(self.item(HEAD, HEAD))
        except (LookupError, TypeError, ValueError):
            raise self.nonsense("its head is none of Sked's") from None

    def item(self, kind: str, name: str) -> Item | None:
        """One item, read consistently; None if it is not there."""
        found: Item | None = self.call("get_item", Key=key_of(kind, name), ConsistentRead=True).get("Item")
        return found

    def items(self, kind: str, names: Sequence[str]) -> Iterator[Item]:
        """Those of the items that are there, each read consistently, but not all at one moment."""
        for start in range(0, len(names), BATCH_GET):
            wanted = [key_of(kind, name) for name in names[start : start + BATCH_GET]]
            while wanted:
                request = {self.address.table: {"Keys": wanted, "ConsistentRead": True}}
                answer = self.call("batch_get_item", RequestItems=request)
                yield from answer.get("Responses", {}).get(self.address.table, ())
                rest = answer.get("UnprocessedKeys", {}).get(self.address.table, {}).get("Keys", [])
                if len(rest) == len(wanted):
                    raise Busy("DynamoDB throttles reading")
                wanted = rest

    def query(self, kind: str, condition: str = "", *, consistent: bool = True, **arguments: Any) -> Iterator[Item]:
        """Items of one kind in the order of their ids, page by page; ``condition`` on the sort key, with ``:a``, from
        ``values``, a mapping. Raises as ``call`` does, in the middle too."""
        values = {":kind": {"S": kind}, **arguments.pop("values", {})}
        arguments |= {
            "KeyConditionExpression": "kind = :kind" + (f" AND {condition}" if condition else ""),
            "ExpressionAttributeValues": values,
            "ConsistentRead": consistent,
        }
        while True:
            answer = self.call("query", **arguments)
            if not isinstance(answer.get("Items"), list):
                raise self.nonsense("its answer to a query holds no items")
            yield from answer["Items"]
            if not answer.get("LastEvaluatedKey") or "Limit" in arguments:
                return
            arguments["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    # --- errors

    def nonsense(self, what: str) -> Unavailable:
        return Unavailable(
            f"what answers is no DynamoDB, or holds no state of Sked ({self.address}): {what}",
            hint="check the endpoint and the name of the table",
        )

    def _hint(self) -> str:
        if self.address.endpoint:
            return f"is DynamoDB Local running at {self.address.endpoint}?"
        return "check the region, the network, and AWS_ENDPOINT_URL_DYNAMODB"

    def _meaning(self, error: Any) -> Exception:
        """What a refusal of DynamoDB means for us."""
        code = str(error.response.get("Error", {}).get("Code", ""))
        said = _plain(str(error.response.get("Error", {}).get("Message", "")))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        operation = error.operation_name
        if code == "TransactionCanceledException":
            reasons = error.response.get("CancellationReasons", [])
            return Cancelled(reasons) if reasons else Busy(f"DynamoDB cancelled a transaction: {said}")
        if code == "ConditionalCheckFailedException":
            return ConditionFailed()
        if code in _BUSY:
            return Busy(f"DynamoDB is busy ({self.address}): {code}: {said}")
        if code in ("AccessDeniedException", "AccessDenied"):
            return self.denied(operation, said)
        if code in _WHO:
            return Denied(
                f"DynamoDB does not accept the credentials ({self.address}): {code}: {said}",
                hint="see `aws sts get-caller-identity`; a wrong clock of this machine makes signatures invalid, too",
            )
        if code == "ResourceNotFoundException":
            self._ready = False
            return Missing(f"{self.address} does not exist", hint="was it deleted? it is made again, empty")
        if code == "ResourceInUseException":
            return Busy(f"{self.address} is being made")
        if code == "ValidationException":
            return InvalidValue(f"DynamoDB refused {operation} ({self.address}): {said}")
        if status >= 500 and code.endswith(("InternalServerError", "ServiceUnavailable", "InternalFailure")):
            return Broken(f"DynamoDB failed ({self.address}): {code}: {said}", hint="see the AWS Health Dashboard")
        return self.nonsense(f"{status} {code[:80]}: {said}")

    def denied(self, operation: str, said: str) -> Denied:
        found = re.search(r"dynamodb:\w+", said)
        action = found[0] if found else _NEEDED.get(operation, f"dynamodb:{operation}")
        return Denied(
            f"AWS denies {action} on {self.address}: {said}",
            hint=f"allow {action} for this role or user; the README of sked-dynamodb has the whole policy",
        )


def pauses() -> Iterator[float]:
    """Seconds between tries: growing from about 10 to 400 ms, each by chance, so that two don't stay in step."""
    longest = 0.02
    while True:
        yield random.uniform(longest / 4, longest)  # noqa: S311 - no secret
        longest = min(longest * 1.6, 0.4)


def transaction_busy(error: Cancelled) -> SkedError | None:
    """For a cancelled transaction without a failed condition: what it means."""
    codes = {str(reason.get("Code")) for reason in error.reasons} - {"None"}
    said = next((_plain(str(reason["Message"])) for reason in error.reasons if reason.get("Message")), "")
    if codes <= set(_BUSY):
        return None
    return InvalidValue(f"DynamoDB refused a commit: {', '.join(sorted(codes))}: {said}")


def _plain(text: str) -> str:
    """The beginning of what a server said, fit to be shown: one printable line."""
    return " ".join("".join(c if c.isprintable() else " " for c in text[:2000]).split())[:300]


def _cause(error: BaseException) -> str:
    """The system's own words for a failure, where there are any."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
        inner = getattr(cause, "kwargs", {}).get("error")
        cause = inner if isinstance(inner, BaseException) else cause.__cause__ or cause.__context__
    return _plain(str(error)) or type(error).__name__
