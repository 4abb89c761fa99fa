"""Make the sample data files, next to this script.

    python sample_data/make_samples.py

Two files are made up by this script, from a fixed seed:

* ``pumping_station.csv``: flow, pressure and power of a water pumping station, every 10 minutes;
* ``machines.parquet``: bearing temperatures of twelve machines, every hour.

The third, ``seattle_temperature.csv``, is NOAA data, not made up (README.md says why it looks so
smooth). It is copied out of the package ``vega_datasets``, which is needed for this step alone:
``pip install vega_datasets==0.9.0``.
Without the package the first two files are made, and the third is left as it is.

Running the script twice gives the same bytes. (Another release of pyarrow may pack the same
rows of ``machines.parquet`` into different bytes: the file names the release that wrote it.)
"""

import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

SEED = 20240304
HERE = Path(__file__).resolve().parent
STAMP_FORMAT = "%Y-%m-%d %H:%M:%S"
SATURDAY = 5

# --- The pumping station: when it was recorded, and the faults planted in its record -----------

STATION_START = "2024-03-04 00:00:00"  # a Monday
STATION_STEPS_PER_HOUR = 6
STATION_DAYS = 8 * 7

# Rows that are missing altogether: first and last missing time stamp.
MISSING_ROWS = [
    ("2024-03-17 02:10:00", "2024-03-17 05:00:00"),
    ("2024-03-28 13:40:00", "2024-03-28 14:10:00"),
    ("2024-04-03 22:00:00", "2024-04-04 06:50:00"),
    ("2024-04-22 09:20:00", "2024-04-22 10:10:00"),
]
# Cells that are empty: sensor, first and last empty time stamp.
EMPTY_CELLS = [
    ("flow_m3h", "2024-03-12 13:20:00", "2024-03-12 16:40:00"),
    ("power_kw", "2024-03-25 07:00:00", "2024-03-25 07:00:00"),
    ("pressure_bar", "2024-03-30 19:30:00", "2024-03-31 00:20:00"),
    ("power_kw", "2024-04-14 10:10:00", "2024-04-14 12:30:00"),
    ("flow_m3h", "2024-04-19 04:50:00", "2024-04-19 05:20:00"),
    ("pressure_bar", "2024-04-25 15:00:00", "2024-04-25 15:30:00"),
]
# A sensor that repeats one reading: sensor, first and last time stamp of the repeats.
STUCK = ("pressure_bar", "2024-04-09 21:30:00", "2024-04-10 07:30:00")
# Single wrong readings: sensor, time stamp, reading.
SPIKES = [
    ("flow_m3h", "2024-03-08 10:40:00", 612.0),
    ("pressure_bar", "2024-03-21 08:50:00", 0.0),
    ("flow_m3h", "2024-04-05 17:20:00", 0.0),
    ("power_kw", "2024-04-13 15:10:00", 147.5),
    ("pressure_bar", "2024-04-16 06:30:00", 9.98),
    ("flow_m3h", "2024-04-24 11:50:00", 588.4),
]

# --- The machines ------------------------------------------------------------------------------

MACHINES_FIRST_HOUR = "2024-02-01 00:00:00"
MACHINES_LAST_HOUR = "2024-06-30 23:00:00"
# Hours missing from the record: machine, first and last missing hour.
MISSING_HOURS = [
    ("M04", "2024-04-11 15:00:00", "2024-04-12 08:00:00"),
    ("M09", "2024-05-23 02:00:00", "2024-05-23 05:00:00"),
]
# Stops for maintenance (the readings go on, the machine cools): machine, first and last hour.
STOPS = [
    ("M03", "2024-05-14 06:00:00", "2024-05-16 13:00:00"),
    ("M11", "2024-04-22 06:00:00", "2024-04-23 21:00:00"),
]


@dataclass(frozen=True)
class Machine:
    """One machine: when it was recorded, when it works, and how warm that makes it.

    A working day begins at ``shift_start`` and lasts ``shift_hours`` (24: round the clock).
    ``rise`` is the warming under full load in degrees C, ``lag`` the hours in which 63 % of a
    warming or cooling is done, ``drift`` the wear in degrees C for 30 days of record.
    """

    name: str
    first: str
    last: str
    shift_start: int
    shift_hours: int
    works_weekends: bool
    rise: float
    lag: float
    drift: float


END = MACHINES_LAST_HOUR
MACHINES = [
    Machine("M01", "2024-02-02 00:00:00", END, 6, 16, False, 31.0, 2.5, 0.5),
    Machine("M02", "2024-02-02 00:00:00", END, 6, 16, False, 27.0, 2.0, 0.2),
    Machine("M03", "2024-02-05 07:00:00", END, 6, 8, False, 38.0, 3.5, 0.9),
    Machine("M04", "2024-02-12 10:00:00", END, 7, 9, False, 24.0, 1.5, 0.0),
    Machine("M05", "2024-02-19 06:00:00", END, 6, 24, True, 35.0, 4.0, 0.4),
    Machine("M06", "2024-03-01 00:00:00", END, 22, 8, False, 29.0, 2.5, -0.3),
    Machine("M07", "2024-03-01 00:00:00", "2024-06-27 23:00:00", 6, 16, True, 33.0, 3.0, 0.6),
    Machine("M08", "2024-03-11 09:00:00", END, 14, 16, False, 26.0, 2.0, 0.3),
    Machine("M09", "2024-03-25 13:00:00", END, 6, 24, False, 41.0, 5.0, 1.1),
    Machine("M10", "2024-04-08 08:00:00", END, 8, 10, True, 22.0, 1.5, 0.1),
    Machine("M11", "2024-04-15 11:00:00", END, 6, 16, False, 30.0, 2.5, 0.7),
    Machine("M12", "2024-05-21 14:00:00", END, 7, 9, False, 36.0, 3.0, 1.4),
]


def wander(rng: np.random.Generator, n: int, memory: float, spread: float) -> Floats:
    """Return ``n`` steps of noise that remembers its past for about ``memory`` steps.

    It is a first-order autoregression with mean 0 and standard deviation ``spread``.
    """
    keep = float(np.exp(-1.0 / memory))
    shocks = rng.normal(0.0, spread * np.sqrt(1.0 - keep**2), n)
    out = np.empty(n)
    level = float(rng.normal(0.0, spread))
    for i in range(n):
        level = keep * level + shocks[i]
        out[i] = level
    return out


def follow(target: Floats, lag: float) -> Floats:
    """Return a curve that runs after ``target``, closing 63 % of the distance in ``lag`` steps."""
    share = 1.0 - float(np.exp(-1.0 / lag))
    out = np.empty(len(target))
    level = float(target[0])
    for i in range(len(target)):
        level += share * (float(target[i]) - level)
        out[i] = level
    return out


def hump(hour: Floats, centre: float, width: float) -> Floats:
    """Return a bell of height 1 around ``centre`` on the 24-hour clock."""
    away = (hour - centre + 12.0) % 24.0 - 12.0
    bell: Floats = np.exp(-0.5 * (away / width) ** 2)
    return bell


def hours_of(times: pd.DatetimeIndex) -> Floats:
    """Return the time of day in hours, with its fraction."""
    return np.asarray(times.hour + times.minute / 60.0, dtype=np.float64)


def between(times: pd.DatetimeIndex, first: str, last: str) -> Flags:
    """Tell which time stamps lie from ``first`` to ``last``, both included."""
    return np.asarray((times >= pd.Timestamp(first)) & (times <= pd.Timestamp(last)))


def make_flow(rng: np.random.Generator, times: pd.DatetimeIndex) -> Floats:
    """Return the flow in m3/h: what a town of some 20 000 people and one dairy draw.

    Workdays have a sharp morning peak at about seven and a second one in the evening; at weekends
    the morning comes late and broad. The dairy rinses its plant on Tuesday and Friday evenings.
    The weather moves the whole level over some days, and spring raises it slowly.
    """
    n = len(times)
    weekday = np.asarray(times.day_of_week)
    day = np.asarray((times - times[0]).days)
    hour = hours_of(times) - rng.normal(0.0, 0.2, STATION_DAYS)[day]  # days begin unevenly
    workday = 0.5 + 0.85 * hump(hour, 7.2, 1.3) + 0.4 * hump(hour, 12.5, 2.6)
    workday += 0.7 * hump(hour, 19.2, 2.2)
    weekend = 0.5 + 0.8 * hump(hour, 10.0, 2.3) + 0.35 * hump(hour, 14.5, 2.5)
    weekend += 0.6 * hump(hour, 19.6, 2.6)
    curve = np.where(weekday >= SATURDAY, weekend, workday)
    steps_per_day = 24 * STATION_STEPS_PER_HOUR
    weather = wander(rng, n, 1.5 * steps_per_day, 0.07) + 0.06 * np.arange(n) / n
    clock = hours_of(times)
    rinsing = np.isin(weekday, [1, 4]) & (clock >= 21.5) & (clock < 23.0)
    dairy = follow(np.where(rinsing, 55.0, 0.0), 1.5)
    flow: Floats = 195.0 * curve * (1.0 + weather) + dairy
    flow += curve * wander(rng, n, 8.0, 9.0) + rng.normal(0.0, 3.0, n)
    return flow


def make_pressure(rng: np.random.Generator, times: pd.DatetimeIndex, flow: Floats) -> Floats:
    """Return the outlet pressure in bar: a set point (lower by night) less what the flow costs."""
    hour = hours_of(times)
    by_day = np.where((hour >= 5.0) & (hour < 23.0), 5.2, 4.7)
    loss = 0.9 * (flow / 300.0) ** 2
    noise = wander(rng, len(times), 20.0, 0.05) + rng.normal(0.0, 0.015, len(times))
    pressure: Floats = follow(by_day, 2.0) - loss + noise
    return pressure


def make_power(rng: np.random.Generator, flow: Floats, pressure: Floats) -> Floats:
    """Return the electric power in kW: flow times pressure over the efficiency, and a base load.

    1 m3/h lifted by 1 bar takes 1/36 kW. The pumps are best near 240 m3/h and wear a little.
    """
    n = len(flow)
    efficiency = 0.74 - 0.16 * ((flow - 240.0) / 240.0) ** 2
    efficiency *= 1.0 - 0.03 * np.arange(n) / n
    noise = wander(rng, n, 12.0, 0.6) + rng.normal(0.0, 0.25, n)
    power: Floats = flow * pressure / (36.0 * efficiency) + 1.8 + noise
    return power


def plant_faults(readings: dict[str, Floats], times: pd.DatetimeIndex) -> Flags:
    """Put the faults listed above into the station's readings, and tell which rows to keep."""
    sensor, first, last = STUCK
    stuck = between(times, first, last)
    readings[sensor][stuck] = readings[sensor][stuck][0]
    for sensor, at, reading in SPIKES:
        readings[sensor][between(times, at, at)] = reading
    for sensor, first, last in EMPTY_CELLS:
        readings[sensor][between(times, first, last)] = np.nan
    kept = np.ones(len(times), dtype=np.bool_)
    for first, last in MISSING_ROWS:
        kept &= ~between(times, first, last)
    return kept


def write_station(path: Path) -> None:
    """Write the made-up record of the pumping station as a wide CSV file."""
    rng = np.random.default_rng([SEED, 1])
    n = STATION_DAYS * 24 * STATION_STEPS_PER_HOUR
    times = pd.date_range(STATION_START, periods=n, freq="10min", name="timestamp")
    flow = make_flow(rng, times)
    pressure = make_pressure(rng, times, flow)
    power = make_power(rng, flow, pressure)
    readings = {
        "flow_m3h": flow.round(1),
        "pressure_bar": pressure.round(2),
        "power_kw": power.round(1),
    }
    kept = plant_faults(readings, times)
    table = pd.DataFrame(readings, index=times).loc[kept]
    table.to_csv(path, date_format=STAMP_FORMAT, lineterminator="\n")


def make_hall(rng: np.random.Generator, times: pd.DatetimeIndex) -> Floats:
    """Return the air temperature of the factory hall in degrees C, shared by all machines."""
    season = 9.0 * np.arange(len(times)) / len(times)
    daily = 1.6 * np.cos(2.0 * np.pi * (hours_of(times) - 16.0) / 24.0)
    hall: Floats = 16.0 + season + daily + wander(rng, len(times), 60.0, 1.8)
    return hall


def make_load(rng: np.random.Generator, machine: Machine, times: pd.DatetimeIndex) -> Floats:
    """Return how hard a machine works, hour by hour: 0 when off, about 1 under full load.

    A shift belongs to the day on which it begins: a night shift begun on Friday runs into
    Saturday. Each day has its own load, some orders being heavier than others.
    """
    shifted = times - pd.Timedelta(hours=machine.shift_start)
    working = np.asarray(shifted.hour < machine.shift_hours)
    if not machine.works_weekends:
        working &= np.asarray(shifted.day_of_week < SATURDAY)
    day = np.asarray((shifted - shifted[0].normalize()).days)
    orders = 0.95 + wander(rng, int(day.max()) + 1, 2.0, 0.07)
    change_over = np.where(np.isin(hours_of(times), [6.0, 14.0, 22.0]), 0.75, 1.0)
    load: Floats = np.where(working, orders[day] * change_over, 0.0)
    load *= 1.0 + wander(rng, len(times), 3.0, 0.05)
    for name, first, last in STOPS:
        if name == machine.name:
            load[between(times, first, last)] = 0.0
    return load


def make_machine(seed: list[int], machine: Machine, hall: "pd.Series[float]") -> pd.DataFrame:
    """Return the bearing temperature of one machine in degrees C, as rows of the long table."""
    rng = np.random.default_rng(seed)
    air = hall.loc[machine.first : machine.last]
    times = pd.DatetimeIndex(air.index)
    n = len(times)
    drift = machine.drift * np.arange(n) / (30.0 * 24.0) + wander(rng, n, 400.0, 0.5)
    warming = machine.rise * follow(make_load(rng, machine, times), machine.lag)
    noise = wander(rng, n, 4.0, 0.4) + rng.normal(0.0, 0.2, n)
    reading = air.to_numpy() + warming + drift + noise
    table = pd.DataFrame(
        {"timestamp": times, "machine": machine.name, "temperature_c": reading.round(1)}
    )
    for name, first, last in MISSING_HOURS:
        if name == machine.name:
            table = table.loc[~between(times, first, last)]
    return table


def write_machines(path: Path) -> None:
    """Write the made-up temperatures of the twelve machines as a long Parquet file."""
    times = pd.date_range(MACHINES_FIRST_HOUR, MACHINES_LAST_HOUR, freq="h")
    hall = pd.Series(make_hall(np.random.default_rng([SEED, 2]), times), index=times)
    parts = [make_machine([SEED, 3, i], machine, hall) for i, machine in enumerate(MACHINES)]
    table = pd.concat(parts, ignore_index=True)
    schema = pa.schema(
        [
            ("timestamp", pa.timestamp("us")),
            ("machine", pa.string()),
            ("temperature_c", pa.float32()),
        ]
    )
    arrays = {
        "timestamp": table["timestamp"].to_numpy(dtype="datetime64[us]"),
        "machine": table["machine"].tolist(),
        "temperature_c": table["temperature_c"].to_numpy(dtype=np.float32),
    }
    pq.write_table(pa.table(arrays, schema=schema), path, compression="zstd")


def write_seattle(path: Path) -> bool:
    """Copy the Seattle temperatures (degrees F) out of ``vega_datasets``; False without it.

    Nothing is filled in: the hour that the source lacks, 2010-03-14 03:00, stays missing.
    """
    if importlib.util.find_spec("vega_datasets") is None:
        return False
    source = importlib.import_module("vega_datasets").data.seattle_temps()
    times = pd.DatetimeIndex(source["date"])
    if not (times.is_unique and times.is_monotonic_increasing):
        raise ValueError("the time stamps of seattle_temps repeat or run backwards")
    readings = {"temperature_f": source["temp"].to_numpy()}
    table = pd.DataFrame(readings, index=times.rename("timestamp"))
    table.to_csv(path, date_format=STAMP_FORMAT, lineterminator="\n")
    return True


def main() -> None:
    """Make the files and say what was made."""
    write_station(HERE / "pumping_station.csv")
    write_machines(HERE / "machines.parquet")
    print("made pumping_station.csv and machines.parquet")
    if write_seattle(HERE / "seattle_temperature.csv"):
        print("copied seattle_temperature.csv out of vega_datasets")
    else:
        print(
            "left seattle_temperature.csv alone: it needs the package vega_datasets"
            " (pip install vega_datasets==0.9.0)"
        )


if __name__ == "__main__":
    main()
