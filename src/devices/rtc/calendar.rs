//! Seconds since 1970 to a date of the Gregorian calendar and back, in UTC, without leap seconds.
//! Plain arithmetic for the clock in the parent module.

const SECONDS_A_DAY: i64 = 86_400;
/// Days from 1 March of year 0 to 1 January 1970.
const EPOCH: i64 = 719_468;
/// The calendar repeats after 400 years.
const DAYS_IN_400_YEARS: i64 = 146_097;

/// A moment, to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DateTime {
    pub year: i64,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
}

impl DateTime {
    /// The moment so many seconds after the beginning of 1970.
    ///
    /// Years are counted from March, so that the day of a leap year comes at their end.
    pub fn from_unix(seconds: i64) -> Self {
        let days = seconds.div_euclid(SECONDS_A_DAY) + EPOCH;
        let era = days.div_euclid(DAYS_IN_400_YEARS);
        let day_of_era = days.rem_euclid(DAYS_IN_400_YEARS);
        let leap_days = day_of_era / 1460 - day_of_era / 36_524 + day_of_era / 146_096;
        let year_of_era = (day_of_era - leap_days) / 365;
        let first_day = 365 * year_of_era + year_of_era / 4 - year_of_era / 100;
        let day_of_year = day_of_era - first_day;
        // Five months of 153 days, from March and again from August.
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let second_of_day = seconds.rem_euclid(SECONDS_A_DAY);
        Self {
            year: year_of_era + 400 * era + i64::from(month <= 2),
            month: small(month),
            day: small(day),
            hour: small(second_of_day / 3600),
            minute: small(second_of_day / 60 % 60),
            second: small(second_of_day % 60),
        }
    }

    /// The inverse of [`from_unix`](Self::from_unix). A day beyond the end of its month is one of
    /// the next month.
    pub fn to_unix(self) -> i64 {
        let month = i64::from(self.month);
        let year = self.year - i64::from(month <= 2);
        let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let month_from_march = if month > 2 { month - 3 } else { month + 9 };
        let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(self.day) - 1;
        let day_of_era = 365 * year_of_era + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = era * DAYS_IN_400_YEARS + day_of_era - EPOCH;
        let minutes = i64::from(self.hour) * 60 + i64::from(self.minute);
        days * SECONDS_A_DAY + minutes * 60 + i64::from(self.second)
    }

    /// 1 for Sunday to 7 for Saturday.
    pub fn weekday(self) -> u8 {
        // The first day of 1970 was a Thursday.
        small((self.to_unix().div_euclid(SECONDS_A_DAY) + 4).rem_euclid(7) + 1)
    }
}

/// Everything here is below 256 by its arithmetic.
fn small(value: i64) -> u8 {
    u8::try_from(value).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(year: i64, month: u8, day: u8, [hour, minute, second]: [u8; 3]) -> DateTime {
        DateTime { year, month, day, hour, minute, second }
    }

    #[test]
    fn known_moments() {
        // Seconds by date(1).
        let table = [
            (0, at(1970, 1, 1, [0, 0, 0]), 5),
            (951_782_400, at(2000, 2, 29, [0, 0, 0]), 3),
            (951_868_800, at(2000, 3, 1, [0, 0, 0]), 4),
            (1_767_225_599, at(2025, 12, 31, [23, 59, 59]), 4),
            (4_107_542_400, at(2100, 3, 1, [0, 0, 0]), 2),
            (-1, at(1969, 12, 31, [23, 59, 59]), 4),
            (-2_208_988_800, at(1900, 1, 1, [0, 0, 0]), 2),
        ];
        for (seconds, moment, weekday) in table {
            assert_eq!(DateTime::from_unix(seconds), moment);
            assert_eq!(moment.to_unix(), seconds, "{moment:?}");
            assert_eq!(moment.weekday(), weekday, "{moment:?}");
        }
        assert_eq!(at(2023, 2, 30, [0, 0, 0]).to_unix(), at(2023, 3, 2, [0, 0, 0]).to_unix());
    }

    proptest! {
        #[test]
        fn there_and_back(seconds in -62_000_000_000i64..253_000_000_000) {
            let moment = DateTime::from_unix(seconds);
            prop_assert!((1..=12).contains(&moment.month) && (1..=31).contains(&moment.day));
            prop_assert_eq!(moment.to_unix(), seconds);
        }
    }
}
